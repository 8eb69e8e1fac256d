"""How a report looks: one style sheet for light and dark, the system's own fonts, nothing loaded."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --ink: #23252f; --soft: #5d6070; --rule: #e3e1d9; --accent: #c2410c;
  --s0: #2563eb; --s1: #0d9488; --s2: #9333ea; --s3: #a16207; --s4: #64748b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15161c; --card: #1d1f27; --ink: #e9e8e3; --soft: #a2a5b3; --rule: #32353f; --accent: #fb923c;
    --s0: #7aa7ff; --s1: #3ccfbf; --s2: #c79bff; --s3: #e0b34c; --s4: #9aa7b8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 44px 28px 72px; }
h1 { font-size: 32px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 10px; }
h2 { font-size: 21px; letter-spacing: -0.01em; margin: 52px 0 6px; }
h3 { font-size: 15px; margin: 22px 0 8px; color: var(--soft); font-weight: 600; }
p { margin: 6px 0 12px; max-width: 92ch; text-wrap: pretty; }
.lead { font-size: 18px; }
.soft, figcaption, .note { color: var(--soft); }
.note { font-size: 14px; }
code, .num { font-variant-numeric: tabular-nums; }
code { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr)); gap: 12px; margin: 26px 0 10px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 13px 13px; }
.card b { display: block; font-size: 25px; line-height: 1.25; letter-spacing: -0.02em; font-weight: 650; }
.card b { white-space: nowrap; }
.card b small { font-size: 13px; font-weight: 500; color: var(--soft); letter-spacing: 0; }
.card span { font-size: 14px; color: var(--soft); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 16px; margin: 14px 0; }
.panel {
  background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 14px 10px; min-width: 0;
}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.num, th.num { text-align: right; white-space: nowrap; }
td b { white-space: nowrap; font-weight: 600; }
td.key { overflow-wrap: anywhere; }
figure { margin: 0 0 18px; }
figure img { display: block; width: 100%; height: auto; border-radius: 6px; background: var(--rule); }
figcaption { font-size: 14px; display: flex; flex-wrap: wrap; gap: 2px 18px; margin-top: 7px; }
figcaption b { flex-basis: 100%; color: var(--ink); font-weight: 600; overflow-wrap: anywhere; }
.heads { display: grid; grid-template-columns: 1fr 1fr 1fr; font-size: 13px; color: var(--soft); margin: 0 0 5px; }
.heads span { text-align: center; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 14px; margin: 14px 0 -4px; }
.legend i { display: inline-block; width: 18px; height: 3px; margin-right: 7px; vertical-align: 4px; }
.legend .key-ours { background: var(--accent); width: 10px; height: 10px; border-radius: 5px; vertical-align: -0.5px; }
.clips { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 8px 22px; }
svg.plot { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--soft); }
svg .rule { stroke: var(--rule); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .title { font-size: 12.5px; }
svg .here { fill: var(--accent); font-weight: 700; font-size: 13.5px; }
svg .here { paint-order: stroke; stroke: var(--card); stroke-width: 4px; }
svg .mark { fill: var(--accent); } svg .halo { fill: var(--accent); opacity: 0.22; }
svg .even { stroke: var(--accent); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .bar { fill: var(--s0); }
svg .line.s0 { stroke: var(--s0); } svg .dot.s0 { fill: var(--s0); } .key-s0 { background: var(--s0); }
svg .line.s1 { stroke: var(--s1); } svg .dot.s1 { fill: var(--s1); } .key-s1 { background: var(--s1); }
svg .line.s2 { stroke: var(--s2); } svg .dot.s2 { fill: var(--s2); } .key-s2 { background: var(--s2); }
svg .line.s3 { stroke: var(--s3); } svg .dot.s3 { fill: var(--s3); } .key-s3 { background: var(--s3); }
svg .line.s4 { stroke: var(--s4); } svg .dot.s4 { fill: var(--s4); } .key-s4 { background: var(--s4); }
@media (max-width: 560px) {
  main { padding: 24px 16px 48px; }
  .clips, .pair { grid-template-columns: 1fr; }
}
@media print { main { max-width: none; padding: 0; } .panel, .card, figure { break-inside: avoid; } }
"""
"""Letters of the classes: ``s0`` ... ``s4`` are the colours of curves."""
