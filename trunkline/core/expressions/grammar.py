"""CEL's grammar, after the language definition's "Syntax" (cel-spec, doc/langdef.md), for lark's LALR parser."""

from __future__ import annotations

GRAMMAR = r"""
start: expr

?expr: disjunction
     | disjunction "?" disjunction ":" expr        -> ternary
?disjunction: conjunction
     | disjunction OR conjunction                  -> logic
?conjunction: relation
     | conjunction AND relation                    -> logic
?relation: addition
     | relation RELATION addition                  -> binary
     | relation IN addition                        -> binary
?addition: product
     | addition PLUS product                       -> binary
     | addition MINUS product                      -> binary
?product: unary
     | product TIMES unary                         -> binary
?unary: member
     | NOT unary                                   -> unary
     | MINUS unary                                 -> unary
?member: primary
     | member "." selector                         -> select
     | member "." NAME "(" [arguments] ")"         -> method
     | member OPEN expr "]"                        -> index
?primary: NAME                                     -> ident
     | "." NAME                                    -> absolute
     | NAME "(" [arguments] ")"                    -> call
     | "." NAME "(" [arguments] ")"                -> call
     | "(" expr ")"                                -> group
     | OPEN [elements] "]"                         -> list_literal
     | OPEN "," "]"                                -> list_literal
     | BRACE [entries] "}"                         -> map_literal
     | BRACE "," "}"                               -> map_literal
     | literal
!selector: NAME | QUOTED_NAME
arguments: expr ("," expr)*
elements: expr ("," expr)* ","?
entries: entry ("," entry)* ","?
entry: expr ":" expr
?literal: INT                                      -> int_literal
     | UINT                                        -> uint_literal
     | FLOAT                                       -> float_literal
     | STRING                                      -> string_literal
     | BYTES                                       -> bytes_literal
     | TRUE                                        -> true_literal
     | FALSE                                       -> false_literal
     | NULL                                        -> null_literal

OR: "||"
AND: "&&"
RELATION: "<=" | ">=" | "==" | "!=" | "<" | ">"
PLUS: "+"
MINUS: "-"
TIMES: "*" | "/" | "%"
NOT: "!"
OPEN: "["
BRACE: "{"
IN.9: /in(?![_a-zA-Z0-9])/
TRUE.9: /true(?![_a-zA-Z0-9])/
FALSE.9: /false(?![_a-zA-Z0-9])/
NULL.9: /null(?![_a-zA-Z0-9])/
STRING.8: /[rR]([\x22]{3}(?s:.)*?[\x22]{3}|'''(?s:.)*?'''|"[^"\r\n]*"|'[^'\r\n]*')/
        | /[\x22]{3}([^\\]|\\(?s:.))*?[\x22]{3}|'''([^\\]|\\(?s:.))*?'''|"([^"\\\r\n]|\\.)*"|'([^'\\\r\n]|\\.)*'/
BYTES.8: /[bB][rR]([\x22]{3}(?s:.)*?[\x22]{3}|'''(?s:.)*?'''|"[^"\r\n]*"|'[^'\r\n]*')/
       | /[bB]([\x22]{3}([^\\]|\\(?s:.))*?[\x22]{3}|'''([^\\]|\\(?s:.))*?'''|"([^"\\\r\n]|\\.)*"|'([^'\\\r\n]|\\.)*')/
FLOAT.7: /[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+/
UINT.6: /(0x[0-9a-fA-F]+|[0-9]+)[uU]/
INT.5: /0x[0-9a-fA-F]+|[0-9]+/
QUOTED_NAME: /`[a-zA-Z0-9_.\-\/ ]+`/
NAME: /(?!(?:true|false|null|in)(?![_a-zA-Z0-9]))[_a-zA-Z][_a-zA-Z0-9]*/

%ignore /[\t\n\f\r ]+/
%ignore /\/\/[^\n]*/
"""

RESERVED = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import"}
    | {"let", "loop", "package", "namespace", "return", "var", "void", "while"}
)
"""Words that are no names of variables and functions, though a field may bear them."""

TOKENS = {
    "$END": "the end",
    "RPAR": "')'",
    "LPAR": "'('",
    "RSQB": "']'",
    "RBRACE": "'}'",
    "COMMA": "','",
    "COLON": "':'",
    "DOT": "'.'",
    "QMARK": "'?'",
    "NAME": "a name",
    "QUOTED_NAME": "a name in backticks",
    "INT": "a number",
    "STRING": "a string",
    "OPEN": "'['",
    "BRACE": "'{'",
    "OR": "'||'",
    "AND": "'&&'",
    "RELATION": "a comparison",
    "PLUS": "'+'",
}
"""How messages call the parser's tokens."""
