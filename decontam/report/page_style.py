"""How report.html looks: light and dark, wide and narrow, no scripts, no fonts, nothing fetched."""

# Nothing may be fetched and nothing may run, even if an escape were forgotten.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """\
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #666b73; --paper: #ffffff; --line: #d9dce1; --band: #f5f6f8;
  --over: #a4262c; --fine: #0b6b3a; --mark: #ffe79a; --mark-ink: #1c1e21; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --soft: #9aa0a8; --paper: #16181b; --line: #34383e; --band: #1e2125;
    --over: #f28b82; --fine: #6fd39b; --mark: #5c4a0c; --mark-ink: #fff3c9; }
}
* { box-sizing: border-box; }
body { margin: 2rem auto; padding: 0 2rem; max-width: 84rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; margin: 0 0 .4rem; }
h2 { font-size: 1.1rem; margin: 2.6rem 0 .2rem; padding-top: .8rem; border-top: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
h2 small, h3 small { font-weight: 400; color: var(--soft); }
p { margin: .3rem 0; }
a { color: inherit; }
.soft { color: var(--soft); }
.outcome { margin: 1rem 0; padding: .7rem 1rem; border-left: 4px solid var(--fine); background: var(--band); }
.outcome.over { border-color: var(--over); }
.scroll { overflow-x: auto; margin: 1rem 0 .4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .3rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; }
.left { text-align: left; }
tbody th { font-weight: 400; }
th small { color: var(--soft); }
th.group { text-align: left; padding-left: 1.5rem; }
thead tr:first-child th { border-bottom: 0; padding-bottom: 0; }
.stick { position: sticky; left: 0; background: var(--paper); min-width: 11rem; max-width: 24rem; white-space: normal;
  overflow-wrap: anywhere; }
.data { margin-top: 1.4rem; }
tbody tr:hover > * { background: var(--band); }
tr.over .share { color: var(--over); font-weight: 600; }
article { margin: .9rem 0; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
article > header { padding: .4rem .8rem; background: var(--band); font-size: .9rem; }
.sides { display: grid; grid-template-columns: 1fr 1fr; }
.side { min-width: 0; padding: .5rem .8rem .7rem; }
.side + .side { border-left: 1px solid var(--line); }
.side h4 { margin: 0 0 .3rem; font-size: .78rem; font-weight: 400; color: var(--soft); }
.side h4 + .text + h4 { margin-top: .6rem; }
.text { white-space: pre-wrap; font-size: .92rem; unicode-bidi: plaintext; }
mark { background: var(--mark); color: var(--mark-ink); border-radius: 2px; padding: 0 1px; }
mark sup { font-size: .68em; line-height: 0; opacity: .75; margin-right: 1px; }
.cut { color: var(--soft); font-size: .85em; font-style: italic; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--soft); padding: .15rem 0; }
article details { margin: 0; }
article summary { padding: .4rem .8rem; }
ul { padding-left: 1.2rem; margin: .3rem 0; }
@media (max-width: 46rem) {
  body { margin: 1rem auto; padding: 0 .8rem; }
  .sides { grid-template-columns: 1fr; }
  .side + .side { border-left: 0; border-top: 1px solid var(--line); }
  th, td { padding: .3rem .5rem; }
  .stick { min-width: 7rem; max-width: 9rem; }
}
@media print { details:not([open]) > :not(summary) { display: none; } article { break-inside: avoid; } }
"""
