"""The languages that are parsed: which files are theirs, and which syntax nodes define something.

Grammars are loaded when first needed. This module must stay cheap to import and never read a repository's files.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Parser, Query

EXTENSIONS: dict[str, str] = {
    ".py": "python",
    ".pyi": "python",
    ".js": "javascript",
    ".jsx": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".ts": "typescript",
    ".mts": "typescript",
    ".cts": "typescript",
    ".tsx": "tsx",
    ".go": "go",
    ".java": "java",
    ".rs": "rust",
    ".rb": "ruby",
    ".rake": "ruby",
    ".c": "c",
    ".h": "cpp",  # a C++ grammar reads C headers; the other way round loses classes
    ".cc": "cpp",
    ".cpp": "cpp",
    ".cxx": "cpp",
    ".hh": "cpp",
    ".hpp": "cpp",
    ".hxx": "cpp",
    ".php": "php",
}
# Not worth reading at all: their content is never text.
OPAQUE = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".webp",
        ".ico",
        ".bmp",
        ".tiff",
        ".pdf",
        ".zip",
        ".gz",
        ".bz2",
        ".xz",
        ".zst",
        ".tar",
        ".tgz",
        ".7z",
        ".jar",
        ".war",
        ".class",
        ".so",
        ".dylib",
        ".dll",
        ".exe",
        ".o",
        ".a",
        ".lib",
        ".pyc",
        ".wasm",
        ".woff",
        ".woff2",
        ".ttf",
        ".otf",
        ".eot",
        ".mp3",
        ".mp4",
        ".mov",
        ".avi",
        ".webm",
        ".ogg",
        ".flac",
        ".wav",
        ".sqlite",
        ".db",
        ".bin",
        ".parquet",
    ]
)
# The module and its function that give the grammar.
GRAMMARS: dict[str, tuple[str, str]] = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "php": ("tree_sitter_php", "language_php"),
}

# Each capture is the name's node; the capture's name is the kind. Where two patterns name the same node, `SPECIFIC` decides.
_JAVASCRIPT = """
(class_declaration name: (_) @class)
(function_declaration name: (_) @function)
(generator_function_declaration name: (_) @function)
(method_definition name: (_) @method)
(variable_declarator name: (identifier) @function value: [(arrow_function) (function_expression)])
(program (lexical_declaration (variable_declarator name: (identifier) @const)))
(program (export_statement (lexical_declaration (variable_declarator name: (identifier) @const))))
"""
_TYPESCRIPT = (
    _JAVASCRIPT
    + """
(abstract_class_declaration name: (_) @class)
(interface_declaration name: (_) @type)
(type_alias_declaration name: (_) @type)
(enum_declaration name: (_) @type)
(function_signature name: (_) @function)
(method_signature name: (_) @method)
(abstract_method_signature name: (_) @method)
"""
)
_C = """
(function_declarator declarator: (identifier) @function)
(struct_specifier name: (type_identifier) @type body: (_))
(union_specifier name: (type_identifier) @type body: (_))
(enum_specifier name: (type_identifier) @type body: (_))
(type_definition declarator: (type_identifier) @type)
(preproc_def name: (identifier) @const)
(preproc_function_def name: (identifier) @function)
"""
DEFINITIONS: dict[str, str] = {
    "python": """
(class_definition name: (identifier) @class)
(function_definition name: (identifier) @function)
(class_definition body: (block (function_definition name: (identifier) @method)))
(class_definition body: (block (decorated_definition definition: (function_definition name: (identifier) @method))))
(module (expression_statement (assignment left: (identifier) @const)))
""",
    "javascript": _JAVASCRIPT,
    "typescript": _TYPESCRIPT,
    "tsx": _TYPESCRIPT,
    "go": """
(function_declaration name: (_) @function)
(method_declaration name: (_) @method)
(type_spec name: (_) @type)
(type_alias name: (_) @type)
(source_file (const_declaration (const_spec name: (_) @const)))
(source_file (var_declaration (var_spec name: (_) @const)))
""",
    "java": """
(class_declaration name: (_) @class)
(record_declaration name: (_) @class)
(interface_declaration name: (_) @type)
(enum_declaration name: (_) @type)
(annotation_type_declaration name: (_) @type)
(method_declaration name: (_) @method)
(constructor_declaration name: (_) @method)
(enum_constant name: (_) @const)
(field_declaration (modifiers "static") declarator: (variable_declarator name: (_) @const))
""",
    "rust": """
(struct_item name: (_) @type)
(enum_item name: (_) @type)
(union_item name: (_) @type)
(trait_item name: (_) @type)
(type_item name: (_) @type)
(function_item name: (_) @function)
(function_signature_item name: (_) @method)
(impl_item body: (declaration_list (function_item name: (_) @method)))
(trait_item body: (declaration_list (function_item name: (_) @method)))
(const_item name: (_) @const)
(static_item name: (_) @const)
(macro_definition name: (_) @function)
""",
    "ruby": """
(class name: (_) @class)
(module name: (_) @class)
(method name: (_) @method)
(singleton_method name: (_) @method)
(assignment left: (constant) @const)
""",
    "c": _C,
    "cpp": _C
    + """
(class_specifier name: (type_identifier) @class body: (_))
(function_declarator declarator: (field_identifier) @method)
(function_declarator declarator: (qualified_identifier name: (identifier) @method))
(alias_declaration name: (type_identifier) @type)
""",
    "php": """
(class_declaration name: (_) @class)
(interface_declaration name: (_) @type)
(trait_declaration name: (_) @type)
(enum_declaration name: (_) @type)
(function_definition name: (_) @function)
(method_declaration name: (_) @method)
(const_element (name) @const)
""",
}
SPECIFIC = ("method", "class", "type", "function", "const")
# Code that is not parsed, but read as text: how it writes comments.
OTHER_CODE: dict[str, str] = {
    **dict.fromkeys((".kt", ".kts", ".swift", ".scala", ".cs", ".dart", ".groovy", ".m", ".mm"), "slash"),
    **dict.fromkeys((".vue", ".svelte"), "javascript"),
    **dict.fromkeys((".sh", ".bash", ".bats", ".pl", ".pm", ".t", ".ex", ".exs", ".r", ".jl"), "hash"),
}
# Syntax nodes between a name and the whole of what it names, and around the whole: with what stands before it.
DECLARING = frozenset(
    [
        "function_declarator",
        "pointer_declarator",
        "reference_declarator",
        "parenthesized_declarator",
        "qualified_identifier",
    ]
)
WRAPPING = frozenset(["decorated_definition", "export_statement", "template_declaration"])


def language_of(path: str) -> str | None:
    """The language a path's ending tells, or None when it is not one we parse."""
    name = PurePosixPath(path)
    if name.name in ("Rakefile", "Gemfile"):
        return "ruby"
    return EXTENSIONS.get(name.suffix.lower())


def other_code(path: str) -> str | None:
    """How a file of code in a language that is not parsed writes comments, or None when it is no such file."""
    return OTHER_CODE.get(PurePosixPath(path).suffix.lower())


def opaque(path: str) -> bool:
    """Whether the path's ending says that it is never text."""
    return PurePosixPath(path).suffix.lower() in OPAQUE


@cache
def grammar(language: str) -> tuple[Parser, Query]:
    """The parser and the definitions' query of a language. Parsers are not for use by two threads at once."""
    from tree_sitter import Language, Parser, Query

    module, function = GRAMMARS[language]
    capsule: object = getattr(importlib.import_module(module), function)()
    loaded = Language(capsule)
    return Parser(loaded), Query(loaded, DEFINITIONS[language])
