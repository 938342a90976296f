"""Will the session end with a purchase? The same inputs and transformer under a head for a binary target.

    python examples/transformers4rec/binary_classification.py

Takes about a minute on one core.
"""

import torch
from sessions import batches, schema

import modeling as tr

max_sequence_length, d_model = 20, 64
torch.manual_seed(0)

# Nothing is hidden: the target is a column of its own.
input_module = tr.TabularSequenceFeatures.from_schema(
    schema(), max_sequence_length=max_sequence_length, continuous_projection=d_model, aggregation="concat"
)
body = tr.SequentialBlock(
    input_module,
    tr.MLPBlock([d_model]),
    tr.TransformerBlock(
        tr.XLNetConfig.build(d_model, n_head=4, n_layer=2, total_seq_length=max_sequence_length, dropout=0.1)
    ),
)
# summary_type says which vector of a session counts; of short sessions padding never does.
head = tr.Head(body, tr.BinaryClassificationTask("bought", summary_type="mean"), inputs=input_module)
model = tr.Model(head)

if __name__ == "__main__":
    held_out = batches(512, seed=1)
    model.fit(batches(4096, seed=0), num_epochs=7, learning_rate=0.003)
    for name, value in model.evaluate(held_out).items():
        print(f"{name:<56}{value:.4f}")

    chances = model(held_out[0])[:5]
    for row, chance in enumerate(chances.tolist()):
        session = [item for item in held_out[0]["item_id"][row].tolist() if item]
        print(f"buys with {chance:4.0%} (did: {bool(held_out[0]['bought'][row])}): {session}")
