"""What can go wrong, as types that a caller may want to catch."""


class LlmprobeError(Exception):
    """Base of all errors that this package raises on purpose."""


class SettingsError(LlmprobeError):
    """An option, a marker argument or a configuration file says something impossible."""


class CasesError(LlmprobeError):
    """The cases of an evaluation cannot be used: none, duplicates, or building them failed."""


class ModelError(LlmprobeError):
    """A model is unknown, absent, gated, damaged, or does not fit the machine."""


class RequestError(LlmprobeError):
    """One request cannot be answered; the others of its batch can."""


class PromptTooLongError(RequestError):
    """The prompt and the room for its answer exceed the model's context."""


class InvalidLogitsError(RequestError):
    """The model computed NaN or infinite scores for this request."""


class UnsupportedError(RequestError):
    """This way of asking cannot express the request; a test that needs it is skipped."""


class SteeringError(UnsupportedError):
    """The model's attention cannot be steered for this request; unsteered it could be answered."""


class NotInProcessError(LlmprobeError):
    """Something needs the model in this process, and it answers from elsewhere."""


class TemplateTooCostlyError(RequestError):
    """A chat template makes more of a prompt than it may, or does what cannot be bounded."""


class ServerError(RequestError):
    """A server did not answer a request, or not as its protocol says."""


class RefusedError(ServerError):
    """A server answered, and withheld the text: a content filter, or a refusal."""


class AccessError(ServerError):
    """A server cannot be reached, or refuses the key or the model: no request would succeed."""


class OutageError(AccessError):
    """A server has failed so often or so long that the run asks it nothing more."""


class BudgetError(RequestError):
    """The run has spent the requests or the money that the user allows; nothing was sent."""


class StorageError(LlmprobeError):
    """This machine cannot keep what is measured: its disk is full, or refuses."""


class ReportError(LlmprobeError):
    """A report cannot be read or written, or does not follow the schema."""
