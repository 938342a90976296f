"""The style sheet of the page: a few colours that the colour-blind tell apart (after Okabe and Ito), light and dark."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f7f8fa;--ink:#1c2128;--muted:#57606a;--line:#d5dae0;
--first:#0072b2;--second:#e69f00;--third:#009e73;--warning:#d55e00}
@media (prefers-color-scheme:dark){:root{--paper:#14171c;--card:#1d2128;--ink:#e8eaed;--muted:#a3abb5;--line:#3a414b;
--first:#56b4e9;--second:#f0b429;--third:#2fc497;--warning:#ff8a4c}}
body{margin:0 auto;max-width:82rem;padding:1rem;background:var(--paper);color:var(--ink);
font:1rem/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{margin:.2rem 0 .8rem;font-size:1.6rem;overflow-wrap:anywhere}
h2{margin:0 0 .5rem;font-size:1.05rem}
dl{display:flex;flex-wrap:wrap;gap:.4rem 1.8rem;margin:0 0 1rem}
dd{margin:0;font-size:1.35rem;font-weight:600;font-variant-numeric:tabular-nums}
dl div{display:flex;flex-direction:column-reverse;justify-content:flex-end}
dt,p{color:var(--muted)}
p{margin:0 0 .8rem}
main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem;margin-top:1rem}
section{min-width:0;padding:1rem;border:1px solid var(--line);border-radius:.5rem;background:var(--card);
break-inside:avoid}
.wide{grid-column:1/-1}
.wide .table{max-height:none}
.prose td,.prose th{text-align:left!important;white-space:normal;vertical-align:top;overflow-wrap:anywhere}
.prose span{display:inline-block;max-width:100%}
mark{background:none;color:var(--first);font-weight:600}
figure{margin:0}
svg{display:block;width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt}
figcaption{margin-top:.5rem;color:var(--muted);font-size:.92rem}
details{margin-top:.5rem;font-size:.9rem}
summary{cursor:pointer;color:var(--muted)}
.table{overflow-x:auto;max-height:28rem}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted);padding:.3rem 0}
th,td{padding:.2rem .7rem .2rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:6rem;font-weight:normal}
thead th{white-space:normal;vertical-align:bottom;font-weight:600!important;color:var(--muted)}
"""
