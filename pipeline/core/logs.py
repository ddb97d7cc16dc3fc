"""Which run and which stage this process is working on, for whoever writes log lines."""

from contextvars import ContextVar

RUN: ContextVar[str] = ContextVar("run", default="")
STAGE: ContextVar[str] = ContextVar("stage", default="")
