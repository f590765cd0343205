"""The settings of WhatsApp: `channels.whatsapp` of codespar.yaml. Secrets stand in the environment, never here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from codespar.domain.settings import Section, Variable, WebAddress

PhoneNumberId = Annotated[str, Field(pattern=r"^[0-9]{5,20}$")]
TemplateName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,512}$")]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(_[A-Za-z]{2,4})?$")]


class WhatsappSettings(Section):
    phone_number_id: PhoneNumberId = Field(
        description="the id (not the number) of the business phone number, from WhatsApp > API Setup"
    )
    token_env: Variable = Field(
        default="CODESPAR_WHATSAPP_TOKEN",
        description="the environment variable that holds the system user's permanent access token",
    )
    app_secret_env: Variable = Field(
        default="CODESPAR_WHATSAPP_APP_SECRET",
        description="the environment variable that holds the app's secret, which signs every delivery",
    )
    verify_token_env: Variable = Field(
        default="CODESPAR_WHATSAPP_VERIFY_TOKEN",
        description="the environment variable that holds a word of your own, typed into the webhook's set-up as well",
    )
    template: TemplateName | None = Field(
        default=None,
        description="an approved template with one body parameter: what is sent more than 24 hours after a person's last message; left out: nothing can be",
    )
    template_language: Language = Field(default="en_US", description="the language code of the template")
    read_marks: bool = Field(
        default=True, description="whether people see that their messages have been taken in (blue ticks)"
    )
    api_url: WebAddress = Field(
        default="https://graph.facebook.com", description="where the Graph API is; for tests and proxies"
    )
    api_version: Annotated[str, Field(pattern=r"^v[0-9]{1,3}\.[0-9]$")] = Field(
        default="v25.0", description="the version of the Graph API"
    )
