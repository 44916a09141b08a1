"""Public JSON of questions to humans: forms and submissions."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from agent_gateway.routes.schemas.base import Body, UnixTime, User

NodeId = Annotated[str, Field(description="The message that asks.")]
NodeTitle = Annotated[str, Field(description="What the question is about, in a few words.")]
FormContent = Annotated[
    str,
    Field(
        description="The question in Markdown; `{{#$output.NAME#}}` marks where the input NAME belongs.",
        examples=["May I delete it?\n\nComment\n\n{{#$output.comment#}}"],
    ),
]
Defaults = Annotated[dict[str, object], Field(description="First values of inputs, by name.")]
Urgency = Annotated[str, Field(description="As the agent said it; `normal` if it did not.")]
Approval = Annotated[
    dict[str, object] | None, Field(description="What is to be approved, when the agent said so.")
]


class SelectOption(BaseModel):
    """A choice of a select."""

    value: str
    label: str


class FormInputItem(BaseModel):
    """An input of a form."""

    type: str = Field(description="`paragraph`, `select`, or another kind that the agent named.")
    output_variable_name: str = Field(description="Its name in `inputs` of the submission.")
    label: str
    required: bool
    placeholder: str
    default: dict[str, object] | None = Field(description="Its first value, as `{type, selector, value}`.")
    options: list[SelectOption] = Field(description="Choices of a select, with labels.")
    option_source: dict[str, object] | None = Field(
        description="The same choices without labels, as `{type, selector, value}`."
    )


class FormActionItem(BaseModel):
    """A button of a form."""

    id: str = Field(description="Goes into `action` of the submission.")
    title: str
    button_style: Literal["primary", "default", "accent", "ghost"]


class FormDefinitionBody(BaseModel):
    """What a front end needs to draw a form."""

    form_content: FormContent
    inputs: list[FormInputItem]
    resolved_default_values: Defaults
    user_actions: list[FormActionItem]
    expiration_time: UnixTime
    node_title: NodeTitle
    urgency: Urgency
    approval: Approval


class HumanInputForm(BaseModel):
    """The form of a question."""

    form_id: str
    form_token: str = Field(description="Reads and submits the form: GET and POST /form/human_input/{token}.")
    node_id: NodeId
    node_title: NodeTitle
    form_content: FormContent
    inputs: list[FormInputItem]
    actions: list[FormActionItem]
    display_in_ui: bool
    resolved_default_values: Defaults
    expiration_time: UnixTime
    urgency: Urgency
    approval: Approval
    approval_channels: list[str] = Field(description="Always empty: a form is answered in the client.")


class FormSubmission(BaseModel):
    """What a human answered."""

    node_id: NodeId
    node_title: NodeTitle
    rendered_content: str = Field(description="The form with its values, or the message that was the answer.")
    action_id: str = Field(description="Empty when a message was the answer.")
    action_text: str = Field(description="Empty when a message was the answer.")
    submitted_data: dict[str, object] = Field(description="The values that were submitted, by name.")


class FormTimeout(BaseModel):
    """A form that nobody submitted in time."""

    node_id: NodeId
    node_title: NodeTitle
    expiration_time: UnixTime


class HumanInputContent(BaseModel):
    """A question among the `extra_contents` of the message that asks it."""

    type: Literal["human_input"]
    workflow_run_id: str = Field(description="The message that asks.")
    state: Literal["open", "submitted", "timeout", "cancelled"]
    submitted: bool
    form_definition: HumanInputForm
    form_submission_data: FormSubmission | None
    form_submission_values: dict[str, object] = Field(description="The values that were submitted, by name.")


class FormSubmitBody(Body):
    """Body of POST /form/human_input/{form_token}."""

    # Any JSON. A type that says so would be a name of its own in the document.
    inputs: dict[str, Any] = Field(default_factory=dict, description="Values by name of the input.")
    action: str = Field(description="Id of the action, the button that was used.", examples=["approve"])
    user: User

    @field_validator("inputs", mode="before")
    @classmethod
    def _null_is_absent(cls, value: object) -> object:
        return dict[str, object]() if value is None else value


class FormSubmitted(BaseModel):
    """The turn that carries the answer."""

    task_id: str
    message_id: str
    conversation_id: str
    events_url: str = Field(description="Follows the turn without a key, for a limited time.")
