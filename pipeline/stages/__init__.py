"""The stages in the order they run. Each module has its Params, a pure function on arrays, compute, and STAGE.

To add one: docs/extending.md."""
