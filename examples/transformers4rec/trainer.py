"""Trainer and training arguments, on parquet files: checkpoints, the best model, metrics, lists.

    python examples/transformers4rec/trainer.py

Takes about a minute on one core. With a folder that stays, `torchrun --nproc_per_node 2` runs it on two.
"""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sessions import batches, schema
from transformers import EarlyStoppingCallback

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
transformer_config = tr.XLNetConfig.build(
    d_model=d_model, n_head=4, n_layer=2, total_seq_length=max_sequence_length, dropout=0.1
)
metrics = [tr.NDCGAt(top_ks=[20]), tr.RecallAt(top_ks=[1, 20])]
model = transformer_config.to_torch_model(input_module, tr.NextItemPredictionTask(weight_tying=True, metrics=metrics))


def write(path: Path, sessions: int, seed: int) -> str:
    """Sessions as `nextitem preprocess` writes them: a row a session, a list a column."""
    (columns,) = batches(sessions, seed, batch_size=sessions)
    lengths = (columns["item_id"] != 0).sum(1).tolist()
    lists = {
        name: [row[:n] for row, n in zip(columns[name].tolist(), lengths, strict=True)]
        for name in ("item_id", "category", "price")
    }
    pq.write_table(pa.table(lists), path)
    return str(path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        trainer = tr.Trainer(
            model=model,
            args=tr.T4RecTrainingArguments(
                output_dir=folder,
                max_sequence_length=max_sequence_length,
                num_train_epochs=5,
                per_device_train_batch_size=128,
                per_device_eval_batch_size=256,
                learning_rate=0.003,
                lr_scheduler_type="cosine",
                learning_rate_num_cosine_cycles_by_epoch=0.1,  # falls once, over five epochs
                eval_strategy="epoch",
                save_strategy="epoch",
                save_total_limit=1,
                load_best_model_at_end=True,
                metric_for_best_model="eval_/next-item/ndcg_at_20",
                predict_top_k=5,
            ),
            train_dataset_or_path=write(Path(folder) / "train.parquet", 4096, seed=0),
            eval_dataset_or_path=write(Path(folder) / "valid.parquet", 512, seed=1),
            callbacks=[EarlyStoppingCallback(2)],
            compute_metrics=True,
        )
        trainer.train()
        results = trainer.evaluate()
        ids, _ = trainer.predict(write(Path(folder) / "test.parquet", 8, seed=2)).predictions
    for name, value in results.items():
        print(f"{name:<36}{value:.4f}")
    (asked,) = batches(8, seed=2, batch_size=8)
    print("session     ", [item for item in asked["item_id"][0].tolist() if item])
    print("recommended ", ids[0].tolist())
