"""The experiments of the paper that Transformers4Rec comes from, on the four public data sets that it used.

Moreira et al., "Transformers4Rec: Bridging the Gap between NLP and Sequential / Session-Based Recommendation", RecSys
2021. README.md says where the data sets are, what is run, and what the paper reports.
"""
