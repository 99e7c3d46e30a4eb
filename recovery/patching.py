"""Functions of the running program that an operator replaces, between two attempts of a step.

Theory of operation. The operator's file defines functions, alone or in classes, under the names
that they have in the program. It is never run: it is parsed, each function is compiled by itself,
and its code is put into the function objects that are there (`__code__`). So everybody who holds
them, bound methods, decorators and closures included, calls the new code, with the old globals,
defaults and decorators. What would not take, or not fit, is refused before anything is changed:
another signature, other free variables, a function that is running, a name that means two
functions.
"""

from __future__ import annotations

import ast
import gc
import os
import stat
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FILE_BYTES_MAX = 1 << 20
_OUTER = "_penstock_patch"
_KINDS = 0x04 | 0x08 | 0x20 | 0x80 | 0x200  # *args, **kwargs, generator, coroutine, async generator
_Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Patch:
    """Functions with the code that they get, and had.

    Attributes:
        names: what the file defines.
        swaps: each function with its old and its new code.
        source: the file's bytes.
    """

    names: tuple[str, ...]
    swaps: tuple[tuple[types.FunctionType, types.CodeType, types.CodeType], ...]
    source: bytes

    def apply(self) -> None:
        """Puts the new code in.

        Raises:
            UsageError: a function did not take it; then none has it.
        """
        try:
            for function, _, code in self.swaps:
                function.__code__ = code
        except (ValueError, TypeError) as error:
            self.revert()
            raise UsageError(f"the patch does not fit: {error}") from error
        missed = [name.__qualname__ for name, _, code in self.swaps if name.__code__ is not code]
        if missed:
            self.revert()
            raise UsageError(f"the patch did not take in {', '.join(missed)}")

    def revert(self) -> None:
        """Puts the old code back, where the new one still is."""
        for function, old, code in self.swaps:
            if function.__code__ is code:
                function.__code__ = old


def load_patch(path: Path) -> Patch:
    """Reads a patch and finds the functions that it replaces; nothing is changed yet.

    A file may begin with `MODULE = "name"`; without it, the functions are those of `__main__`.

    Args:
        path: a file of this user that nobody else may write to.

    Raises:
        UsageError: it cannot be read, is not such a file, or does not fit the program.
    """
    source = _read(path)
    try:
        tree = ast.parse(source, str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"the patch is not Python: {error}") from None
    module, futures, found = _contents(tree)
    if not found:
        raise UsageError(f"{path} defines no function")
    functions = _functions(module)
    swaps = []
    for name, node in found.items():
        targets = _targets(functions, module, name)
        code = _compiled(name, node, targets[0].__code__, futures, str(path))
        _check_fit(name, targets[0].__code__, code)
        swaps += [(target, target.__code__, code) for target in targets]
    running = {code for code in _running() if any(code is old for _, old, _ in swaps)}
    if running:
        names = ", ".join(sorted(code.co_name for code in running))
        raise UsageError(f"{names} is running, and would go on with its old code")
    return Patch(tuple(found), tuple(swaps), source)


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UsageError(f"the patch cannot be read: {error}") from None
    seen = os.fstat(descriptor)
    if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o022:
        os.close(descriptor)
        raise UsageError(
            f"{path} must be a file of this program's user that nobody else may write to"
        )
    with open(descriptor, "rb") as file:
        source = file.read(FILE_BYTES_MAX + 1)
    if len(source) > FILE_BYTES_MAX:
        raise UsageError(f"a patch has at most {FILE_BYTES_MAX} bytes")
    return source


def _contents(tree: ast.Module) -> tuple[str, list[ast.stmt], dict[str, _Definition]]:
    """The module that is meant, imports from `__future__`, and the functions by qualified name.

    Raises:
        UsageError: there is something else in the file, which would not have an effect.
    """
    module, futures = "__main__", list[ast.stmt]()
    found: dict[str, _Definition] = {}
    waiting: list[tuple[str, ast.stmt]] = [("", node) for node in tree.body]
    while waiting:
        prefix, node = waiting.pop(0)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                name = f"{prefix}{node.name}"
                if name in found:
                    raise UsageError(f"line {node.lineno}: {name} is defined twice")
                found[name] = node
            case ast.ClassDef():
                waiting += [(f"{prefix}{node.name}.", part) for part in node.body]
            case ast.ImportFrom(module="__future__"):
                futures.append(node)
            case ast.Assign([ast.Name("MODULE")], ast.Constant(str() as module)) if not prefix:
                pass
            case ast.Expr(ast.Constant(str())) | ast.Pass():
                pass
            case _:
                raise UsageError(
                    f"line {node.lineno}: a patch holds functions and classes of them; put what"
                    " they need, imports too, inside the functions"
                )
    return module, futures, found


def _functions(module: str) -> list[types.FunctionType]:
    """Every function object of a module, whoever holds it.

    Raises:
        UsageError: there is no such module.
    """
    if module not in sys.modules:
        raise UsageError(f"there is no module {module!r:.80} in the program")
    found = [one for one in gc.get_objects() if type(one) is types.FunctionType]
    return [one for one in found if one.__module__ == module]


def _targets(
    functions: Sequence[types.FunctionType], module: str, name: str
) -> list[types.FunctionType]:
    """The function objects that a name means: all have the same code.

    Raises:
        UsageError: there is none, or the name means several.
    """
    last = name.rpartition(".")[2]
    # A wrapper has its function's name, too, but not in its code.
    own = [one for one in functions if one.__code__.co_name == last]
    found = [one for one in own if one.__qualname__ == name]
    found = found or [one for one in own if one.__qualname__.endswith(f"<locals>.{name}")]
    if not found:
        near = sorted({one.__qualname__ for one in own})[:5]
        hint = f"; there is {', '.join(near)}" if near else ""
        raise UsageError(f"module {module} has no function {name}{hint}")
    codes = dict.fromkeys(one.__code__ for one in found)
    if len(codes) > 1:
        lines = ", ".join(f"{code.co_filename}:{code.co_firstlineno}" for code in codes)
        raise UsageError(f"{name} means several functions of {module}: {lines}")
    return found


def _compiled(
    name: str, node: _Definition, old: types.CodeType, futures: list[ast.stmt], filename: str
) -> types.CodeType:
    """The code of one function, with the free variables that the old one has.

    It is compiled within a function that has these variables, and within classes of the same
    names, for the sake of `super()` and of private names.
    """
    node.decorator_list = []
    unused = [ast.Expr(ast.Name(free, ast.Load())) for free in old.co_freevars]
    if unused:
        # Never runs, but makes the compiler see all of them.
        node.body.append(ast.If(ast.Constant(False), list[ast.stmt](unused), []))
    inner: ast.stmt = node
    classes = name.split(".")[:-1]
    for part in reversed(classes):
        inner = _holding(f"class {part}: pass", [inner])
    variables = [
        ast.Assign([ast.Name(free, ast.Store())], ast.Constant(None))
        for free in old.co_freevars
        if free != "__class__" or not classes
    ]
    outer = _holding(f"def {_OUTER}(): pass", [*variables, inner])
    tree = ast.fix_missing_locations(ast.Module([*futures, outer], []))
    try:
        code = compile(tree, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{name} of the patch does not compile: {error}") from None
    for part in (_OUTER, *classes, node.name):
        code = next(
            one for one in code.co_consts if isinstance(one, types.CodeType) and one.co_name == part
        )
    return code


def _holding(text: str, body: list[ast.stmt]) -> ast.stmt:
    """A definition with another body; parsed, since the fields of nodes differ between Pythons."""
    made = ast.parse(text).body[0]
    assert isinstance(made, (ast.FunctionDef, ast.ClassDef))
    made.body = body
    return made


def _check_fit(name: str, old: types.CodeType, new: types.CodeType) -> None:
    """Refuses code that the function object could not take, or callers could not call.

    Raises:
        UsageError: it does not fit; the message says how.
    """
    if _signature(old) != _signature(new):
        raise UsageError(
            f"{name} has other arguments in the patch: {_words(new)}, and {_words(old)} in the"
            " program"
        )
    if old.co_freevars != new.co_freevars:
        raise UsageError(
            f"{name} is a closure over {', '.join(old.co_freevars) or 'nothing'}, and in the patch"
            f" over {', '.join(new.co_freevars) or 'nothing'}"
        )


def _signature(code: types.CodeType) -> tuple[object, ...]:
    return (
        code.co_posonlyargcount,
        code.co_argcount,
        code.co_kwonlyargcount,
        code.co_flags & _KINDS,
        _arguments(code),
    )


def _arguments(code: types.CodeType) -> tuple[str, ...]:
    extra = bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + extra]


def _words(code: types.CodeType) -> str:
    return f"({', '.join(_arguments(code))})"


def _running() -> Iterator[types.CodeType]:
    """The code of every frame of every thread."""
    for top in sys._current_frames().values():
        frame: types.FrameType | None = top
        while frame is not None:
            yield frame.f_code
            frame = frame.f_back
