"""The exception tree, and the exit codes that the command line promises.

    DrpwatchError                       base: its text is one clear sentence for the user
    ├── ConfigError                     config file: key, line, what is allowed        exit 78
    ├── UsageError                      a value that a user gave cannot be used        exit 2
    ├── MicrographError                 this file cannot be picked (now or ever)
    │   ├── IncompleteMicrograph        not whole yet: it waits
    │   ├── ChangedWhileReading         it was rewritten under us: it waits again
    │   └── UnusableMicrograph          it never will be picked as it is: failed, with the reason
    ├── ScanFailed                      the watch root is missing or failing: it is waited for
    ├── StarError                       a STAR file breaks the rules of RELION's reader
    ├── WeightsError                    a weights file is missing, damaged or of another kind
    ├── SessionError                    no such session, or not possible in its state
    ├── JournalError                    the journal cannot be opened or does not fit
    │   └── JournalDamaged              it is damaged: it can be made anew from the STAR files
    ├── OutputError                     outputs cannot be written now: the recorder pauses
    ├── DeviceError                     the picking device
    │   ├── DeviceNotReady              not usable yet: files queue, readiness is false
    │   │   └── DeviceOutOfMemory       too little memory now: smaller tiles, then it waits
    │   └── DeviceFault                 a sticky error: exit at once, systemd restarts  exit 70
    │       ├── CanaryMoved             its results are not what they were: the same
    │       └── PickingHangs            it does not come back from one micrograph: the same
    └── DaemonUnreachable               the control socket does not answer             exit 69

Who catches what: MicrographError becomes the micrograph's recorded reason; OutputError,
ScanFailed and DeviceNotReady pause a loop and are retried; the rest reach the command line, which
prints the sentence and exits with `exit_code`.
"""


class DrpwatchError(Exception):
    """Base of all errors that drpwatch raises on purpose."""

    exit_code = 1


class ConfigError(DrpwatchError):
    """The configuration file has a wrong key, type or value, or cannot be read."""

    exit_code = 78


class UsageError(DrpwatchError):
    """A value given by the user cannot be used."""

    exit_code = 2


class MicrographError(DrpwatchError):
    """A micrograph cannot be picked; the text is the reason that is recorded."""


class IncompleteMicrograph(MicrographError):
    """The file is shorter than its own header implies: it is still being written."""


class ChangedWhileReading(MicrographError):
    """The file was changed or replaced between the decision and the end of the read."""


class UnusableMicrograph(MicrographError):
    """The file is not a micrograph that drpwatch can pick: a movie, a stack, a blank image."""


class ScanFailed(DrpwatchError):
    """The watch root is missing, not mounted or failing; nothing can be concluded from it."""


class StarError(DrpwatchError):
    """A STAR file or value would not survive RELION's reader."""


class WeightsError(DrpwatchError):
    """A weights file is missing, damaged, or of an unknown architecture."""


class SessionError(DrpwatchError):
    """The session does not exist, exists already, or is in a state that forbids the verb."""

    exit_code = 2


class JournalError(DrpwatchError):
    """The journal is locked by another daemon, damaged, or of a newer schema."""


class JournalDamaged(JournalError):
    """The journal cannot be trusted; it was left as it is."""


class OutputError(DrpwatchError):
    """An output file cannot be written now (disk full, read-only, gone)."""


class DeviceError(DrpwatchError):
    """The picking device."""


class DeviceNotReady(DeviceError):
    """The requested device is not usable yet."""


class DeviceOutOfMemory(DeviceNotReady):
    """The device, or the CPU, has no room for a step; nothing of that step is left on it."""


class DeviceFault(DeviceError):
    """A sticky device error; nothing computed in this process can be trusted any more."""

    exit_code = 70
    kind = "device"
    """What the next process calls the crash."""


class CanaryMoved(DeviceFault):
    """The same micrograph gave other picks than before: the device computes wrong results."""

    kind = "canary"


class PickingHangs(DeviceFault):
    """A micrograph is on the device for longer than its time limit."""

    kind = "time_limit"


class DaemonUnreachable(DrpwatchError):
    """The daemon does not answer on its control socket."""

    exit_code = 69
