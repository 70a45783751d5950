"""Data sets, tasks, and batches of the class-incremental protocol."""

from ciss_fast.data.ade20k import ADE20KDataset
from ciss_fast.data.dataset import SegmentationDataset, build_dataset, dataset_names, register_dataset
from ciss_fast.data.folder import FolderDataset
from ciss_fast.data.loading import (
    EvaluationSet,
    StepBatches,
    TrainingSet,
    make_evaluation_loader,
    make_loader,
)
from ciss_fast.data.memory_cache import MemoryCache
from ciss_fast.data.scan import ClassScan, class_presence, scan_classes
from ciss_fast.data.shapes import ShapesDataset
from ciss_fast.data.tasks import Task, evaluation_label_table, select_images, training_label_table
from ciss_fast.data.transforms import (
    ColourJitter,
    RandomFlip,
    RandomResizedCrop,
    ResizeCentreCrop,
    TrainingTransform,
    denormalise,
    normalise,
)
from ciss_fast.data.voc import VOCDataset

__all__ = [
    "ADE20KDataset",
    "ClassScan",
    "ColourJitter",
    "EvaluationSet",
    "FolderDataset",
    "MemoryCache",
    "RandomFlip",
    "RandomResizedCrop",
    "ResizeCentreCrop",
    "SegmentationDataset",
    "ShapesDataset",
    "StepBatches",
    "Task",
    "TrainingSet",
    "TrainingTransform",
    "VOCDataset",
    "build_dataset",
    "class_presence",
    "dataset_names",
    "denormalise",
    "evaluation_label_table",
    "make_evaluation_loader",
    "make_loader",
    "normalise",
    "register_dataset",
    "scan_classes",
    "select_images",
    "training_label_table",
]
