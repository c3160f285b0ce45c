"""What a named text says of a file's origin: source types, and what image generators write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distildire.provenance.fields import CAMERA, Field
from distildire.provenance.limits import MAX_VALUE, clean


@dataclass(frozen=True)
class Declaration:
    """One statement of a file about its own origin."""

    kind: str
    """What it comes to: "generated", "edited" (parts of it are generated), "captured", "camera"
    (make and model only), "broken" (a C2PA manifest that fits the file no more), "other"."""
    source: str
    """Where in the file it stands, for instance: XMP DigitalSourceType."""
    value: str
    """What stands there, printable, at most 4,000 characters."""
    says: str
    """The same as a clause after "The file says that"."""


class Found(NamedTuple):
    """A statement with its place among others; two of one `subject` say the same."""

    rank: int
    subject: str
    declaration: Declaration


RANKS = ("validated", "generated", "edited", "broken", "captured", "other", "camera")


def finding(
    kind: str, source: str, value: str, says: str, subject: str = "", rank: str = ""
) -> Found:
    """A statement; `rank` is that of its kind by default, `subject` what it says."""
    about = Declaration(kind, source, clean(value, MAX_VALUE), says)
    return Found(RANKS.index(rank or kind), subject or says, about)


SOURCE_TYPES = {
    "trainedAlgorithmicMedia": ("generated", "it was generated"),
    "compositeWithTrainedAlgorithmicMedia": ("edited", "parts of it were generated"),
    "algorithmicMedia": ("generated", "it was made by an algorithm without training data"),
    "compositeSynthetic": ("edited", "parts of it are synthetic"),
    "digitalCapture": ("captured", "it was captured by a camera"),
    "computationalCapture": ("captured", "it was captured by a camera, from several exposures"),
    "negativeFilm": ("captured", "it was scanned from a film negative"),
    "positiveFilm": ("captured", "it was scanned from a film"),
    "print": ("captured", "it was scanned from a print"),
}
"""Of http://cv.iptc.org/newscodes/digitalsourcetype/: what each comes to."""


def term_of(source_type: str) -> str:
    """The last word of a digital source type: of an address, with "#" or "/", or of a QCode."""
    return clean(re.split("[/#:]", source_type[-200:].rstrip("/#: \n"))[-1], 80)


def meaning(source_type: str) -> tuple[str, str]:
    """(kind, words) of a digital source type."""
    for known, comes_to in SOURCE_TYPES.items():
        if source_type.lower() == known.lower():
            return comes_to
    return "other", "it is of another digital source type"


_CLAIMS = {"softwareagent", "creatortool", "software", "encoder", "originatingprogram"}
_SHORT = _CLAIMS | {"credit", "source"}
"""Keys whose values name a program or who provides the picture; titles and people's names don't."""

_NAMES = (
    ("midjourney", "Midjourney"), ("novelai", "NovelAI"), ("stable diffusion", "Stable Diffusion"),
    ("stable-diffusion", "Stable Diffusion"), ("stablediffusion", "Stable Diffusion"),
    ("automatic1111", "Stable Diffusion"), ("sd.next", "SD.Next"), ("comfyui", "ComfyUI"),
    ("invokeai", "InvokeAI"), ("fooocus", "Fooocus"), ("draw things", "Draw Things"),
    ("drawthings", "Draw Things"), ("swarmui", "SwarmUI"), ("easy diffusion", "Easy Diffusion"),
    ("dall-e", "DALL-E"), ("dall·e", "DALL-E"), ("chatgpt", "ChatGPT"),
    ("gpt-image", "GPT Image"), ("openai--imagegeneration", "OpenAI"),
    ("adobe firefly", "Adobe Firefly"), ("google ai", "Google AI"), ("bing image creator", "Bing"),
    ("microsoft designer", "Microsoft Designer"), ("leonardo.ai", "Leonardo.Ai"),
    ("dreamstudio", "DreamStudio"), ("stability ai", "Stability AI"), ("nightcafe", "NightCafe"),
    ("black forest labs", "FLUX"), ("playground ai", "Playground AI"), ("craiyon", "Craiyon"),
    ("sdxl", "Stable Diffusion"), ("meta ai", "Meta AI"), ("imagined with ai", "Meta AI"),
    ("artbreeder", "Artbreeder"), ("starryai", "starryai"), ("tensor.art", "Tensor.Art"),
    ("seaart", "SeaArt"), ("pixai", "PixAI"), ("amazon bedrock", "Amazon Bedrock"),
    ("titan image generator", "Amazon Titan"), ("generative fill", "Generative Fill"),
    ("generative expand", "Generative Expand"),
)  # fmt: skip
_AMBIGUOUS = (
    ("dalle", "DALL-E"), ("openai", "OpenAI"), ("firefly", "Adobe Firefly"),
    ("ideogram", "Ideogram"), ("sora", "Sora"), ("gemini", "Gemini"), ("imagen", "Imagen"),
    ("flux.1", "FLUX"), ("grok", "Grok"), ("recraft", "Recraft"), ("krea", "Krea"),
    ("runway", "Runway"), ("kling", "Kling"), ("dream machine", "Luma Dream Machine"),
    ("wombo", "Wombo"),
)  # fmt: skip
"""Words that also name people, places and other programs; believed where they stand alone."""

_OWN_KEYS = {
    "invokeai_metadata": "InvokeAI", "invokeai_graph": "InvokeAI", "invokeai_workflow": "InvokeAI",
    "sd-metadata": "InvokeAI", "dream": "InvokeAI", "fooocus_scheme": "Fooocus",
    "sui_image_params": "SwarmUI", "use_stable_diffusion_model": "Easy Diffusion",
}  # fmt: skip
"""Keys of text chunks that one program alone writes."""

_SHAPES = (
    ("SwarmUI", ('"sui_image_params"',)),
    ("ComfyUI", ('"class_type"', '"inputs"')),
    ("ComfyUI", ('"nodes"', '"last_node_id"')),
    ("ComfyUI", ('"nodes"', '"widgets_values"')),
    ("NovelAI", ('"uncond_scale"', '"sampler"')),
    ("NovelAI", ('"signed_hash"', '"sampler"')),
    ("Fooocus", ('"metadata_scheme"', "fooocus")),
    ("Fooocus", ("Fooocus v",)),
    ("InvokeAI", ('"positive_prompt"', '"cfg_scale"', '"scheduler"')),
    ("Draw Things", ('"uc"', '"sampler"', '"steps"', '"model"')),
    ("Easy Diffusion", ('"use_stable_diffusion_model"',)),
)
"""Strings that stand together in what a program writes, under whatever key."""


def statement_of(field: Field, types: Sequence[str] = ()) -> Found | None:
    """What one field says of the file's origin, if anything.

    `types`: kinds that the file's digital source types before it come to.
    """
    source, key, text = field
    if not text:
        return None
    if source == CAMERA:
        article = "an" if text[0] in "AEIOUaeiou" else "a"
        says = f"it was taken with {article} {text} (make, model and maker notes can be copied)"
        return finding("camera", source, text, says)
    if key == "digitalsourcetype":
        value = term_of(text)
        if value.lower() in {"nil", "none", ""}:
            return None
        kind, says = meaning(value)
        return finding(kind, source, text, f"{says} ({source}: {value})")
    if key == "aisystemused":
        return _ai_system(field, types)
    if (label := _china_label(field)) is not None:
        return label
    if program := _OWN_KEYS.get(key):
        return _made_with(program, field)
    for program, needles in _SHAPES:
        if all(needle in text for needle in needles):
            return _made_with(program, field)
    if settings := _diffusion_settings(text):
        model = re.search(r"\bModel: ([^,\n]{1,80})", settings)
        named = f', model "{clean(model[1], 60)}"' if model else ""
        return _made_with("Stable Diffusion or a kin of it", field, named)
    if key in _CAPTIONS and _midjourney(text):
        return _made_with("Midjourney", field)
    return _named(field) if key in _SHORT or len(text) <= 120 else None


_NO_SYSTEM = {"", "none", "no", "n/a", "na", "nil", "null", "false", "not applicable", "unknown"}


def _ai_system(field: Field, types: Sequence[str]) -> Found | None:
    """IPTC's AISystemUsed: a name, which leaves it to a source type how much is its work."""
    if field.text.strip(" .-").lower() in _NO_SYSTEM:
        return None
    name = clean(field.text, 60)
    if not types or "generated" in types:
        return _made_with(name, field)
    kind, how = ("edited", "edited") if "edited" in types else ("other", "made or edited")
    says = f"it was {how} with the image generator {name} ({field.source})"
    return finding(kind, field.source, field.text, says, name)


def _made_with(program: str, field: Field, more: str = "") -> Found:
    says = f"it was made with the image generator {program}{more} ({field.source})"
    return finding("generated", field.source, field.text, says, program)


_STEPS = re.compile(r"Steps: \d{1,4},([^\n]*)")
_SETTING = re.compile(
    r"\b(?:Sampler: [A-Za-z]|(?:CFG scale|Guidance|Clip skip|ENSD): \d|Seed: \d+\s*(?:,|$)"
    r"|Size: \d+x\d+|(?:Model(?: hash)?|VAE(?: hash)?|Schedule type|Version): \w"
    r"|Denoising strength: [01])",
    re.IGNORECASE,
)


def _diffusion_settings(text: str) -> str:
    """The settings that web interfaces of Stable Diffusion write below the prompt, or "".

    Recipes and captions have steps too, and one more number: two settings must follow, or a seed
    where the line begins with the steps.
    """
    at = text.rfind("Steps: ")
    settings = text[at : at + 4096] if at >= 0 else ""
    line = _STEPS.match(settings)
    if line is None:
        return ""
    names = {setting.partition(":")[0].lower() for setting in _SETTING.findall(line[1])}
    alone = names == {"seed"} and text[max(at - 1, 0) : at] in {"", "\n"}
    return settings if len(names) > 1 or alone else ""


_CAPTIONS = {"description", "imagedescription", "comment", "usercomment", "subject"}
_JOB = re.compile(r"Job ID: ?[0-9a-f]{8}-[0-9a-f]{4}-")
_SWITCH = re.compile(r" --(?:v|niji) \d(\.\d\s*$)?")
_OTHER_SWITCH = re.compile(r" --(?:ar \d+:\d|(?:s|stylize|c|chaos|q|quality|seed) \d|style raw)")


def _midjourney(text: str) -> bool:
    if "Job ID:" in text and _JOB.search(text[-MAX_VALUE:]):
        return True
    end = text[-MAX_VALUE:] if " --" in text else ""
    switch = _SWITCH.search(end)
    return switch is not None and bool(switch[1] or _OTHER_SWITCH.search(end))


def _china_label(field: Field) -> Found | None:
    """The implicit label of GB 45438-2025: a JSON object under the key AIGC."""
    at = 0 if field.key == "aigc" else field.text.find('"AIGC"')
    if at < 0:
        return None
    label = re.search(r"Label\W{1,8}([123])\b", field.text[at : at + 400])
    if label is None:
        return None
    kind, words = {
        "1": ("generated", "it was generated"),
        "2": ("other", "it was possibly generated"),
        "3": ("other", "it is suspected to be generated"),
    }[label[1]]
    return finding(
        kind, field.source, field.text, f"{words} (label AIGC {label[1]}, {field.source})"
    )


_ANNOUNCED = re.compile(r"(?:made|created|generated|imagined) (?:with|by|using) ")
_ENDS = r"(?=\s*(?:$|[.,;:!()\]|/\"])|\s+[-\u2013\u2014]\s)"
"""A name ends here: no word goes on with it, and it isn't asked for."""
_GENERIC = re.compile(
    r"(?i:(?:this |the )?(?:image|picture|photo|artwork|content) (?:is |was )?)?"
    r"\b(?:(?i:ai[- ]generated)|(?i:(?:generated|made|created|imagined) (?:by|with|using) )"
    rf"(?i:an? )?(?:AI|(?i:ai){_ENDS}))\b(?!\s*\?)"
)
NEGATED = re.compile(r"\b(?:no|not?|non|never|nor|without|free of|cannot|\w+n['\u2019]?t)\b")
_VERSION = (
    r"(?:[ /_-](?:v?\d[\w.]*|image|flash|pro|ultra|preview|turbo|dev|schnell|labs|ai|xl|bot"
    r"|\[\w+\]))*"
)
_MAKER = r"(?:(?:adobe|google|openai|xai|black forest labs) )?"


def generic(text: str) -> re.Match[str] | None:
    """Where a text says that it was generated by AI, which Ai Weiwei is not."""
    return _GENERIC.search(text.lower() if text.isupper() else text)


def _named(field: Field) -> Found | None:
    """A generator's name in a field for names of programs; a credit is quoted as it stands.

    A caption must say that the picture was made with it; what is denied declares nothing.
    """
    source, key, text = field
    head, words = text[:200].strip(), clean(text, 60)
    lowered = head.lower()
    quoted = f'it is described as "{words}" ({source})'
    if NEGATED.search(lowered):
        return None
    if "edited with google ai" in lowered:
        return finding("edited", source, text, quoted, "Google AI")
    announced = _ANNOUNCED.match(lowered)
    if key not in _SHORT and not (announced and key in _CAPTIONS):
        return None
    program = _program(lowered[announced.end() :] if announced else lowered, key)
    if program:
        if key == "softwareagent" or program.startswith("Generative"):
            says = f'it was edited with "{words}" ({source})'
            return finding("edited", source, text, says, program)
        if key in _CLAIMS or words.lower() == program.lower():
            return _made_with(program, field)
        return finding("generated", source, text, quoted, program)
    said = generic(head)
    return finding("generated", source, text, quoted) if said and not said.start() else None


def _program(lowered: str, key: str) -> str:
    """The generator that a text names: anywhere in the name of a program, else alone."""
    for name, program in _NAMES:
        whole = rf"(?<![\w-]){re.escape(name)}(?!\w|[ -](?:viewer|browser|gallery|downloader))"
        if name in lowered and (found := re.search(whole, lowered)):
            rest = lowered[found.end() :]
            if key in _CLAIMS or (not found.start() and re.match(_VERSION + _ENDS, rest)):
                return program
    for name, program in _AMBIGUOUS:
        if name in lowered and re.fullmatch(_MAKER + re.escape(name) + _VERSION, lowered):
            return program
    return ""
