"""Transformers4Rec 23.12 as a peer: in an environment of its own, asked through JSON.

================= ============================================================================
`environment`     makes ``.t4r-venv`` in the project's root with uv, or finds it there
`process`         runs a module in any environment: a request as JSON in, an answer as JSON out
`schema`          our features as the schema that it reads
`inside`          what runs in that environment; nothing else imports it
================= ============================================================================
"""
