"""A web page to try the model by hand: click a session together and watch what Triton recommends.

`reading` finds the items, `catalogue` knows them, `server` answers the page on this machine and asks Triton for it,
`page/` is what the browser loads: one HTML, one CSS and one JavaScript file, without anything from elsewhere.
"""
