"""Transformers4Rec's Trainer on Hugging Face's: `tr.Trainer`, `tr.T4RecTrainingArguments`, `tr.fit_and_evaluate`.

    args = tr.T4RecTrainingArguments("run", max_sequence_length=20, per_device_train_batch_size=128)
    trainer = tr.Trainer(model, args, train_dataset_or_path="features/train", eval_dataset_or_path="features/valid",
                         compute_metrics=True)
    trainer.train()
    trainer.evaluate()

On several processes: ``torchrun --nproc_per_node 2 program.py``.
"""

from modeling.trainer.arguments import T4RecTrainingArguments
from modeling.trainer.time_windows import fit_and_evaluate
from modeling.trainer.trainer import Trainer

__all__ = ["T4RecTrainingArguments", "Trainer", "fit_and_evaluate"]
