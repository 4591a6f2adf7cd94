"""Every error Petal raises, in one tree.

```
PetalError
├── AgentConfigurationError (ValueError)     an agent's definition cannot work
│   ├── YAMLConfigurationError               … and it stands in a YAML file: file, line, key
│   └── PromptKeyError (LookupError)         a prompt names a key that the state does not have
├── ModelError                               a chat model cannot be had
│   ├── UnknownModelError (ValueError)       no provider of that name
│   ├── ModelPackageMissingError (ImportError)
│   └── ModelKeyMissingError                 the provider wants a key
├── ToolServerError (ConnectionError)        an MCP server does not give its tools
├── ThreadIdRequiredError (ValueError)       a checkpointer is on, and no thread was named
├── CheckpointerRequiredError                state was asked of an agent that keeps none
├── StepRejectedError                        a human said no to a step
├── StepGoneError (LookupError)              a run would go on at a step that the agent no longer has
├── EffectError                              what a step did cannot be recorded, or not be told from the record
│   ├── EffectMismatchError (ValueError)     it was recorded with other arguments
│   ├── UnknownEffectError                   it began and never ended
│   ├── EffectNotRecordedError (LookupError) a dry run comes to what was never done
│   └── EffectResultError (TypeError)        its result would not come back as it is
├── OutsideStepError (RuntimeError)          a key is asked for where no step runs
├── PendingInterruptError (ValueError)       new input came while a question was open
├── ResumeError                              an answer that fits no open question
│   ├── NothingToResumeError (LookupError)
│   │   └── UnknownThreadError               … since there is no such thread
│   ├── InterruptIdRequiredError (ValueError)
│   ├── UnknownInterruptError (LookupError)
│   │   └── ClosedInterruptError             … any more: it was answered, or given up
│   └── InvalidAnswerError (ValueError)
└── CheckpointerError                        state cannot be kept or read
    ├── CheckpointerConfigurationError (ValueError)
    ├── CheckpointerUnavailableError (ConnectionError)
    ├── CheckpointNotFoundError (LookupError)
    │   ├── BranchNotFoundError              … nor a branch of that name
    │   └── TooFewTurnsError                 … before so many turns
    ├── BranchNameError (ValueError)         what can be no name of a branch
    ├── BranchExistsError (ValueError)       another checkpoint has that name
    ├── CheckpointCorruptionError
    ├── StateVersionError                    state was written by a version of the agent that this one cannot read
    │   └── MigrationError                   … since what brings it to this version failed
    ├── CheckpointConflictError              another run has the thread, or changed it meanwhile
    │   ├── ThreadBusyError                  … and this one was not to wait, or not so long
    │   └── RunStoppedError                  … which stopped this one
    └── ValueNotSavableError (TypeError)     of petal.checkpoints.codec: a value would not come back as it is
```

Every error can be pickled and says what to do about it; none prints a secret.
"""

from __future__ import annotations

from petal.errors.agents import (
    AgentConfigurationError,
    CheckpointerRequiredError,
    ModelError,
    ModelKeyMissingError,
    ModelPackageMissingError,
    PromptKeyError,
    StepGoneError,
    StepRejectedError,
    ThreadIdRequiredError,
    ToolServerError,
    UnknownModelError,
    YAMLConfigurationError,
)
from petal.errors.base import (
    PetalError,
    known_names,
    nearest,
    words_of,
)
from petal.errors.effects import (
    EffectError,
    EffectMismatchError,
    EffectNotRecordedError,
    EffectResultError,
    OutsideStepError,
    UnknownEffectError,
)
from petal.errors.questions import (
    ClosedInterruptError,
    InterruptIdRequiredError,
    InvalidAnswerError,
    NothingToResumeError,
    PendingInterruptError,
    ResumeError,
    UnknownInterruptError,
    UnknownThreadError,
)
from petal.errors.state import (
    BranchExistsError,
    BranchNameError,
    BranchNotFoundError,
    CheckpointConflictError,
    CheckpointCorruptionError,
    CheckpointerConfigurationError,
    CheckpointerError,
    CheckpointerUnavailableError,
    CheckpointNotFoundError,
    MigrationError,
    RunStoppedError,
    StateVersionError,
    ThreadBusyError,
    TooFewTurnsError,
)

__all__ = [
    "AgentConfigurationError",
    "BranchExistsError",
    "BranchNameError",
    "BranchNotFoundError",
    "CheckpointConflictError",
    "CheckpointCorruptionError",
    "CheckpointNotFoundError",
    "CheckpointerConfigurationError",
    "CheckpointerError",
    "CheckpointerRequiredError",
    "CheckpointerUnavailableError",
    "ClosedInterruptError",
    "EffectError",
    "EffectMismatchError",
    "EffectNotRecordedError",
    "EffectResultError",
    "InterruptIdRequiredError",
    "InvalidAnswerError",
    "MigrationError",
    "ModelError",
    "ModelKeyMissingError",
    "ModelPackageMissingError",
    "NothingToResumeError",
    "OutsideStepError",
    "PendingInterruptError",
    "PetalError",
    "PromptKeyError",
    "ResumeError",
    "RunStoppedError",
    "StateVersionError",
    "StepGoneError",
    "StepRejectedError",
    "ThreadBusyError",
    "ThreadIdRequiredError",
    "TooFewTurnsError",
    "ToolServerError",
    "UnknownEffectError",
    "UnknownInterruptError",
    "UnknownModelError",
    "UnknownThreadError",
    "YAMLConfigurationError",
    "known_names",
    "nearest",
    "words_of",
]
