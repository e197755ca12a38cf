"""Benign and malignant tumours: 30 measurements, 2 classes."""

from p2pfl.learning.data import bundled
from p2pfl.learning.task import Task
from p2pfl.learning.tasks.divided import divided
from p2pfl.learning.tasks.layers import mlp, softmax
from p2pfl.settings import DataSection, TaskSection


def breast_cancer(section: TaskSection, data: DataSection, seed: int) -> Task:
    models = {"mlp": lambda: mlp(30, 32, 2), "softmax": lambda: softmax(30, 2)}
    return divided(bundled.breast_cancer(), models, section, data, seed)
