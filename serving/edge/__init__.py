"""The HTTP front of a server: strangers talk to it, and it alone talks to Triton's own HTTP.

Triton 2.51 parses JSON by recursion and takes a tensor's shape at its word, so one request can end it; and it offers
administration to whoever asks. The edge lets only the requests of clients through, reads them itself, checks them
against what was really sent, and writes them anew: Triton's parser sees nothing that a client wrote.

    python -m serving.edge      one process beside tritonserver; `serving.server.TritonServer` starts and ends it
    head.py                     the first lines of a request
    routes.py                   who may ask for what
    inference.py                the body of a request for recommendations, checked and written anew
    body.py                     bodies as they arrive, whole or in chunks, never more than allowed
    connection.py, front.py     one client's connection; all of them
    upstream.py                 connections to Triton

Importing it loads neither numpy, pandas nor torch.
"""
