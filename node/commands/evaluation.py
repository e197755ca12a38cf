"""`p2pfl model evaluate`: what a model that peers made is worth on a task's common test set."""

from pathlib import Path

from p2pfl.failure import Failure


def evaluated(file: Path, task_name: str, model_name: str | None, data: Path | None) -> dict[str, float]:
    """{"accuracy", "loss", ...} on the test set that is in no peer's data, or, where a task has none, on the test data in the
    folder `data`."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from p2pfl.learning.data.tensors import as_tensors
    from p2pfl.learning.evaluation import measure
    from p2pfl.learning.parameters import Model
    from p2pfl.learning.task import TaskPeer
    from p2pfl.learning.tasks import resolve
    from p2pfl.settings import DataSection, TaskSection
    from p2pfl.task_file import blamed, load

    try:
        tensors = load_file(file)
    except OSError as error:
        raise Failure("unreadable_model", f"{file}: {error.strerror or 'not found'}.", "Give a model.safetensors.") from None
    except SafetensorError:
        raise Failure("bad_model_file", f"{file}: not a safetensors file.", "Give what `p2pfl demo` wrote as model.") from None
    with blamed(f"the task {task_name}"):
        task = resolve(TaskSection(name=task_name, model=model_name), DataSection(), 0, load)
        model = Model(task, 0)
        test = model.common_test()
        if test is None:
            test = as_tensors(task.data(TaskPeer(0, 1, data))[1], "the test data")
    expected = {slot.name: slot.shape for slot in model.layout.slots}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        name = next(n for n in sorted(expected.keys() | found.keys()) if expected.get(n) != found.get(n))
        message = f"{file}: not a model of the task {task_name}: {_difference(name, found.get(name), expected.get(name))}."
        raise Failure("other_model", message, "Name the task and the model that it was made with.")
    vector = model.layout.flatten({name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    with blamed(f"the task {task_name}"):
        return measure(model, vector, model.local, test)


def _difference(name: str, found: tuple[int, ...] | None, expected: tuple[int, ...] | None) -> str:
    if found is None:
        return f"it has no {name}"
    if expected is None:
        return f"it has {name}, which the task's model has not"
    return f"{name} has the shape {list(found)}, not {list(expected)}"
