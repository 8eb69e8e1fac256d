"""Files to clips and clips to files; the only room that knows codecs."""
