"""The program of Transformers4Rec's README, with another import: an XLNet that predicts the next item.

    python examples/transformers4rec/next_item.py

Takes about a minute on one core.
"""

import torch
from sessions import batches, schema

import modeling as tr
from modeling.ranking_metric import NDCGAt, RecallAt

max_sequence_length, d_model = 20, 64
torch.manual_seed(0)

# Turns the columns that the schema tags into one vector an event.
input_module = tr.TabularSequenceFeatures.from_schema(
    schema(),
    max_sequence_length=max_sequence_length,
    continuous_projection=d_model,
    aggregation="concat",
    masking="causal",
)
transformer_config = tr.XLNetConfig.build(
    d_model=d_model, n_head=4, n_layer=2, total_seq_length=max_sequence_length, dropout=0.1
)
body = tr.SequentialBlock(
    input_module,
    tr.MLPBlock([d_model]),
    tr.TransformerBlock(transformer_config, masking=input_module.masking),
)
metrics = [NDCGAt(top_ks=[20, 40], labels_onehot=True), RecallAt(top_ks=[20, 40], labels_onehot=True)]
head = tr.Head(
    body,
    tr.NextItemPredictionTask(weight_tying=True, metrics=[*metrics, RecallAt(top_ks=[1])]),
    inputs=input_module,
)
model = tr.Model(head)

if __name__ == "__main__":
    held_out = batches(512, seed=1)
    model.fit(batches(4096, seed=0), num_epochs=5, learning_rate=0.003)
    for name, value in model.evaluate(held_out).items():
        print(f"{name:<36}{value:.4f}")

    session = {name: column[:1] for name, column in held_out[0].items()}
    scores, ids = model(session, top_k=5, exclude="seen")
    print("session     ", [item for item in session["item_id"][0].tolist() if item])
    print("recommended ", ids[0].tolist())
    print("scores      ", [round(score, 2) for score in scores[0].tolist()])
