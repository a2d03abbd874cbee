import errno
import io
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dassl.utils import (
    Logger,
    MetricMeter,
    OutputDirError,
    ProgressBar,
    Registry,
    UnknownNameError,
    check_isfile,
    collect_env_info,
    count_num_param,
    listdir_nohidden,
    log_to,
    mkdir_if_missing,
    open_all_layers,
    open_specified_layers,
    read_json,
    setup_logger,
    tolist_if_not,
    write_json,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_registry():
    registry = Registry("PLANT")

    @registry.register()
    class Oak:
        pass

    class Elm:
        pass

    assert registry.register(Elm) is Elm
    assert registry.get("Oak") is Oak
    assert registry.registered_names() == ["Oak", "Elm"]
    with pytest.raises(ValueError, match="already"):
        registry.register(Elm)
    registry.register(Elm, force=True)
    with pytest.raises(KeyError) as error:
        registry.get("oka")
    assert isinstance(error.value, UnknownNameError)
    assert str(error.value) == 'Unknown PLANT "oka". Did you mean Oak? Known: Elm, Oak'


def test_logger_mirrors_stdout_and_keeps_old_logs(tmp_path, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    for word in ("one", "two", "three"):
        setup_logger(tmp_path / "run")
        print(word)
    setup_logger("")
    assert sys.stdout.terminal is terminal  # never stacked
    sys.stdout.close()
    logs = sorted((tmp_path / "run").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [log.read_text() for log in logs] == ["one\n", "two\n", "three\n"]
    assert (tmp_path / "run" / "log.txt").read_text() == "one\n"
    assert all(log.name.startswith("log.txt") for log in logs)
    assert terminal.getvalue() == "one\ntwo\nthree\n"


def test_a_terminal_that_is_gone_ends_nothing(tmp_path, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

        def flush(self):
            self.write("")

    monkeypatch.setattr(sys, "stdout", Gone())
    with log_to(tmp_path):
        print("goes on", flush=True)
    assert (tmp_path / "log.txt").read_text() == "goes on\n"


@pytest.mark.parametrize("out", [Terminal, io.StringIO])
@pytest.mark.parametrize("err", [Terminal, io.StringIO])
def test_bar_and_lines_never_meet_on_a_terminal(tmp_path, monkeypatch, out, err):
    bar_shown = err is Terminal
    lines_shown = not (out is Terminal and bar_shown)
    out, err = out(), err()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    setup_logger(tmp_path)
    bar = ProgressBar([1, 2, 3], desc="epoch")
    for item in bar:
        bar.log(f"line {item}")
    sys.stdout.close()
    assert (tmp_path / "log.txt").read_text() == "line 1\nline 2\nline 3\n"
    assert ("line" in out.getvalue()) is lines_shown
    assert ("epoch" in err.getvalue()) is bar_shown


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for action in (
        lambda: setup_logger(tmp_path / "file" / "out"),
        lambda: setup_logger(tmp_path / "file"),
        lambda: mkdir_if_missing(tmp_path / "file" / "out"),
        lambda: write_json({}, tmp_path / "file" / "out.json"),
    ):
        with pytest.raises(OutputDirError, match="file.*writable"):
            action()
    assert not isinstance(sys.stdout, Logger)


def test_files(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json({"x": [1, None]}, path)
    assert read_json(path) == {"x": [1, None]}
    with pytest.raises(TypeError):
        write_json({"x": object()}, path)
    assert read_json(path) == {"x": [1, None]}
    (path.parent / ".hidden").write_text("")
    (path.parent / "a.txt").write_text("")
    assert listdir_nohidden(path.parent, sort=True) == ["a.txt", "b.json"]
    assert check_isfile(path)
    with pytest.warns(UserWarning, match="nowhere"):
        assert not check_isfile(tmp_path / "nowhere")


AWKWARD = st.text(st.sampled_from('[]{}", \\\n x'), max_size=8)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | AWKWARD


@settings(max_examples=60, deadline=None)
@given(st.recursive(PLAIN, lambda x: st.lists(x) | st.dictionaries(AWKWARD, x), max_leaves=12))
def test_json_is_read_as_written(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(value, path)
    assert read_json(path) == value


def test_rows_of_json_are_lines(tmp_path):
    write_json({"counts": [[1, 2], [3, 4]], "names": ["a, b", "[c]"], "none": []}, tmp_path / "x")
    lines = (tmp_path / "x").read_text().splitlines()
    assert [line.strip() for line in lines[2:4]] == ["[1, 2],", "[3, 4]"]


def test_log_of_a_context(tmp_path, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(KeyError), log_to(tmp_path):
        print("one")
        raise KeyError("lost")
    assert sys.stdout is terminal and terminal.getvalue() == "one\n"
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith("one\nTraceback") and "KeyError: 'lost'" in log
    with log_to(""):
        assert sys.stdout is terminal


def test_layers():
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Dropout(), "c": nn.Linear(3, 1)})
    assert count_num_param(model) == count_num_param(params=model.parameters()) == 13
    open_specified_layers(model, "c")
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    assert (model["a"].training, model["c"].training) == (False, True)
    open_all_layers(model)
    assert all(p.requires_grad for p in model.parameters()) and model["a"].training
    with pytest.raises(ValueError, match="d"):
        open_specified_layers(model, ["d"])
    with pytest.raises(ValueError):
        count_num_param()


def test_small_helpers():
    assert tolist_if_not(1) == tolist_if_not([1]) == [1]
    assert "torch: " in collect_env_info()
    meter = MetricMeter()
    meter.update({"loss": 1.0, "acc": 50})
    meter.update({"loss": 3.0})
    meter.update(None)
    assert str(meter) == "loss 3.0000 (2.0000) acc 50.0000 (50.0000)"
    with pytest.raises(TypeError, match="mapping"):
        meter.update(3)
