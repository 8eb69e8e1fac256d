"""Folders, tables, npz, tars and token shards -> examples, for whoever needs them (train, classify, measure, corpus).

::

    collection = open_collection("clips", group=r"(performer\\d+)")     # any of the kinds, found out by looking
    train, val = split_by_group(collection, {"train": 0.8, "val": 0.2}, seed=0).values()
    loader = make_loader(train, transform, batch_size=8, num_workers=2, seed=0)  # transform(example, rng) -> anything
    for batch in loader: ...                                            # one epoch; loader.state_dict() at any moment

``example`` and ``payload``: what comes out. ``collection``: the interface. ``folder``, ``table``, ``npz``, ``tars``,
``records``: one kind of source each; ``opening`` looks which it is. ``order``: who takes what, when. ``feed``: the
resumable stream; ``torch_dataset``: the same with worker processes. ``split``: groups on one side only.
``language``: token examples as rows for language models.
"""
