"""JSON under a schema: `documents` makes records, their texts, schemas and prompts.

`reading` finds the object in an answer, `scoring` says how right it is.
"""
