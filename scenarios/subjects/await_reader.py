"""Operations and coroutines that a file makes and never awaits, found by reading it.

To Python `Load("x")` without `await` is a tuple that nobody wants, and `if user_read(cpu, page):` is always
true. What a call gives is looked up in the module as it was imported; what becomes of it, in its syntax. A
value that is handed to a function or put into a container may be awaited there, and is left alone.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from emulator.hardware.operations import TABLE, BeginLoad, Series
from emulator.kernel.instead import kernels_own
from emulator.kernel.policy import Policy
from scenarios.subjects.modules import short_path, tree_of
from scenarios.usage import UsageProblem

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
_CONTAINERS: Final = (ast.Tuple, ast.List, ast.Set, ast.Dict, *_COMPREHENSIONS)
_LOOKING: Final = (
    *(ast.If, ast.While, ast.Assert, ast.Expr, ast.Compare, ast.BinOp, ast.UnaryOp, ast.AugAssign),
    *(ast.FormattedValue, ast.Subscript, ast.Match),
)
_LOOKERS: Final = (abs, all, any, bool, int, max, min, print, range, repr, sorted, str, sum)
"""They look at a value and never await it."""


def check_awaits(module: ModuleType) -> None:
    """UsageProblem for the first forgotten await of a module."""
    for line, called in forgotten(module):
        file = short_path(module.__file__ or module.__name__)
        raise UsageProblem(f"{file}:{line}: {called}(...) is never awaited; put await in front of it")


def forgotten(module: ModuleType) -> Iterator[tuple[int, str]]:
    """Line and name of every call whose answer is an operation or a coroutine that nobody awaits."""
    tree = tree_of(module)
    if tree is None:
        return
    reader = _Reader(module, tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and reader.gives_awaitable(node.func) and reader.is_lost(node):
            yield node.lineno, ast.unparse(node.func)


class _Reader:
    """One module: its syntax with the way up, and its objects."""

    def __init__(self, module: ModuleType, tree: ast.Module) -> None:
        self._module = module
        self._tree = tree
        self._parents: dict[ast.AST, ast.AST] = {}
        self._scopes: dict[ast.AST, ast.AST] = {tree: tree}
        self._bound: dict[tuple[ast.AST, str], list[ast.AST]] = {}
        self._gives: dict[ast.AST, bool] = {}
        for node in ast.walk(tree):
            inner = node if isinstance(node, _Function) else self._scopes[node]
            for child in ast.iter_child_nodes(node):
                self._parents[child] = node
                self._scopes[child] = inner
        for node in self._parents:
            for name, meaning in self._binds(node):
                self._bound.setdefault((self._scopes[node], name), []).append(meaning)

    def _above(self, node: ast.AST) -> Iterator[ast.AST]:
        while node in self._parents:
            node = self._parents[node]
            yield node

    # --- what a call gives -----------------------------------------------------------------------

    def gives_awaitable(self, callee: ast.expr) -> bool:
        """Calling this gives an operation or a coroutine."""
        found = self._meaning(callee)
        if isinstance(found, _Function):
            return self._function_gives(found)
        return inspect.iscoroutinefunction(kernels_own(found)) or (isinstance(found, type) and found in TABLE)

    def _function_gives(self, function: _Function) -> bool:
        """An async function; or a plain one that hands on what another one gives."""
        if function not in self._gives:
            self._gives[function] = False
            inside = [node for node in ast.walk(function) if self._scopes[node] is function]
            if isinstance(function, ast.AsyncFunctionDef):
                self._gives[function] = not any(isinstance(node, ast.Yield) for node in inside)
            else:
                given = [node.value for node in inside if isinstance(node, ast.Return)]
                if isinstance(function, ast.Lambda):
                    given = [function.body]
                self._gives[function] = bool(given) and all(
                    isinstance(one, ast.Call) and self.gives_awaitable(one.func) for one in given
                )
        return self._gives[function]

    def _meaning(self, node: ast.expr) -> Any:
        """The function of this file (its syntax) or the object that an expression names; None if unknown."""
        if isinstance(node, ast.Name):
            return self._name(node)
        if not isinstance(node, ast.Attribute):
            return None
        owner = node.value
        if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super":
            _, made = self._class_around(node)
            return next((vars(one)[node.attr] for one in made[1:] if node.attr in vars(one)), None)
        if isinstance(owner, ast.Name) and self._is_self(owner):
            syntax, made = self._class_around(node)
            for one in syntax.body if syntax is not None else ():
                if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and one.name == node.attr:
                    return one
            return next((vars(one)[node.attr] for one in made if node.attr in vars(one)), None)
        found = self._meaning(owner)
        if isinstance(found, (ModuleType, type)):
            return inspect.getattr_static(found, node.attr, None)
        named = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        return getattr(Policy, node.attr, None) if named == "policy" else None

    def _name(self, node: ast.Name) -> Any:
        for scope in self._above(node):
            if not isinstance(scope, _Function | ast.Module):
                continue
            bound = self._bound.get((scope, node.id), [])
            if len(bound) == 1 and isinstance(bound[0], _Function):
                return bound[0]
            if bound and scope is not self._tree:
                return self._imported(bound, node.id)
        return vars(self._module).get(node.id, getattr(builtins, node.id, None))

    def _imported(self, bound: list[ast.AST], name: str) -> Any:
        """What an import inside a function gives."""
        if len(bound) == 1 and isinstance(bound[0], ast.ImportFrom) and not bound[0].level:
            source = sys.modules.get(bound[0].module or "")
            wanted = next(one.name for one in bound[0].names if (one.asname or one.name) == name)
            return getattr(source, wanted, None)
        return None

    def _binds(self, node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
        """The names that a node gives a meaning, in the function around it or at the top of the module."""
        parent = self._parents[node]
        if isinstance(node, ast.arg):
            yield node.arg, node
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not isinstance(parent, ast.ClassDef):
                yield node.name, node
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            plain = isinstance(parent, ast.Assign) and isinstance(parent.value, ast.Lambda)
            yield node.id, parent.value if plain and isinstance(parent, ast.Assign) else node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for one in node.names:
                yield one.asname or one.name.partition(".")[0], node

    def _class_around(self, node: ast.AST) -> tuple[ast.ClassDef | None, tuple[type, ...]]:
        """The class whose method this is in: its syntax, and the classes that it is made of."""
        syntax = next((one for one in self._above(node) if isinstance(one, ast.ClassDef)), None)
        made = vars(self._module).get(syntax.name) if syntax is not None else None
        return syntax, made.__mro__ if isinstance(made, type) else ()

    def _is_self(self, node: ast.Name) -> bool:
        """It is the first parameter of the method around it."""
        for one in self._above(node):
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = [*one.args.posonlyargs, *one.args.args][:1]
                if isinstance(self._parents[one], ast.ClassDef):
                    return [arg.arg for arg in first] == [node.id]
        return False

    # --- what becomes of it ----------------------------------------------------------------------

    def is_lost(self, node: ast.expr, many: bool = False) -> bool:
        """Nobody can await the value of `node`, or what it holds if it is a container (`many`)."""
        parent = self._parents[node]
        if isinstance(parent, ast.IfExp):
            return node is parent.test or self.is_lost(parent, many)
        if isinstance(parent, ast.BoolOp):
            return node is not parent.values[-1] or self.is_lost(parent, many)
        if isinstance(parent, (ast.NamedExpr, ast.Starred)):
            return self.is_lost(parent, many)
        if isinstance(parent, ast.keyword | ast.Call):
            return self._is_lost_in_call(parent, node)
        if isinstance(parent, ast.Return):
            return not many and isinstance(self._scopes[node], ast.AsyncFunctionDef)
        if isinstance(parent, ast.Assign | ast.AnnAssign):
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            return all(self._is_lost_in(target, node, many) for target in targets)
        if isinstance(parent, _CONTAINERS):
            if isinstance(parent, ast.Tuple) and (target := self._counterpart(parent, node)) is not None:
                return self._is_lost_in(target, node, many)
            return self.is_lost(parent, True)
        if isinstance(parent, ast.Subscript) and many and node is parent.value:
            return self.is_lost(parent)
        if isinstance(parent, ast.For):
            return not many or self._is_lost_in(parent.target, node, False)
        if isinstance(parent, ast.comprehension):
            return not many or node is not parent.iter
        return isinstance(parent, _LOOKING)

    def _is_lost_in_call(self, parent: ast.keyword | ast.Call, node: ast.expr) -> bool:
        call = self._parents[parent] if isinstance(parent, ast.keyword) else parent
        if not isinstance(call, ast.Call) or node is call.func:
            return False
        callee = self._meaning(call.func)
        if callee in (Series, BeginLoad):
            return False
        return (isinstance(callee, type) and callee in TABLE) or any(callee is one for one in _LOOKERS)

    def _counterpart(self, values: ast.Tuple, node: ast.expr) -> ast.expr | None:
        """Of `a, b = Load(...), Load(...)`: the target of a value."""
        parent = self._parents[values]
        if isinstance(parent, ast.Assign) and len(parent.targets) == 1:
            targets = parent.targets[0]
            if isinstance(targets, ast.Tuple) and len(targets.elts) == len(values.elts):
                return targets.elts[values.elts.index(node)]
        return None

    def _is_lost_in(self, target: ast.expr, node: ast.expr, many: bool) -> bool:
        """Nobody awaits what has been assigned: no use of the name, or none that could."""
        if isinstance(target, (ast.Tuple, ast.List)):
            return not many
        scope = self._scopes[node]
        if isinstance(target, ast.Name):
            if scope is self._tree:
                return False
            shared = [one for one in ast.walk(scope) if isinstance(one, (ast.Global, ast.Nonlocal))]
            if any(target.id in one.names for one in shared):
                return False
        elif isinstance(target, ast.Attribute):
            scope = self._tree
        else:
            return False
        # A use that hands it to another name may end in an await.
        return all(
            not isinstance(self._parents[use], ast.Assign) and self.is_lost(use, many)
            for use in ast.walk(scope)
            if isinstance(use, ast.Name | ast.Attribute)
            and isinstance(use.ctx, ast.Load)
            and _word(use) == _word(target)
        )


def _word(name: ast.Name | ast.Attribute) -> tuple[type, str]:
    return type(name), name.id if isinstance(name, ast.Name) else name.attr
