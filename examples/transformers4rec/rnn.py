"""A GRU in the transformer's place: any module of torch is a block.

    python examples/transformers4rec/rnn.py

Takes about half a minute on one core.
"""

import tempfile

import torch
from sessions import batches, schema

import modeling as tr

max_sequence_length, d_model = 20, 64
torch.manual_seed(0)

input_module = tr.TabularSequenceFeatures.from_schema(
    schema(),
    max_sequence_length=max_sequence_length,
    continuous_projection=d_model,
    aggregation="concat",
    masking="causal",
)
body = tr.SequentialBlock(
    input_module,
    tr.MLPBlock([d_model]),
    tr.Block(torch.nn.GRU(input_size=d_model, hidden_size=d_model, batch_first=True), [None, 20, d_model]),
)
metrics = [tr.NDCGAt(top_ks=[20]), tr.RecallAt(top_ks=[1, 20])]
head = tr.Head(body, tr.NextItemPredictionTask(weight_tying=True, metrics=metrics), inputs=input_module)
model = tr.Model(head, top_k=5)

if __name__ == "__main__":
    held_out = batches(512, seed=1)
    model.fit(batches(4096, seed=0), num_epochs=6, learning_rate=0.003)
    for name, value in model.evaluate(held_out).items():
        print(f"{name:<36}{value:.4f}")

    # Saved as safetensors and JSON, and loaded without running anything that the files say.
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        loaded = tr.Model.load(folder)
    session = {name: column[:1] for name, column in held_out[0].items()}
    scores, ids = loaded(session)
    print("session     ", [item for item in session["item_id"][0].tolist() if item])
    print("recommended ", ids[0].tolist())
