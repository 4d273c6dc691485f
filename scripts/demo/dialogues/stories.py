"""Requests for stories, and stories told from plots: hundreds of thousands of them, about what was asked for."""

import random
from collections.abc import Mapping

from dialogues.grammar import Topic, capitalize, expand, fill
from dialogues.plots import ENDINGS, LOST, QUESTS, TOGETHER, Plot
from dialogues.words import ANIMALS, BOYS, GIRLS, LOSABLE, MEN, THINGS, WOMEN

PRONOUNS = {"he": ("he", "him", "his"), "she": ("she", "her", "her")}
VOWELS = ("a", "e", "i", "o", "uncle", "umbrella")
HOMES = (
    "in a small house at the edge of a wood",
    "in a quiet village",
    "beside a river",
    "near an old mill",
    "at the foot of a green hill",
    "in the garden of a great house",
    "in a valley far from the town",
    "not far from the sea",
)
CHARACTERS = (
    "kind, but very shy",
    "clever, and knew it",
    "poor, but always cheerful",
    "good-natured, and a little lazy",
    "brave, and fond of adventure",
    "quiet, and loved to read",
    "rather lonely",
)
OPENINGS = (
    "{Once upon a time there was|There once was|There was once|Once there was} <a_hero> {called|named|whose name was} <name>, who lived <home>.",
    "<A_hero> {called|named} <name> once lived <home>.",
)
BOTH_OPENINGS = (
    "{Once upon a time there were|There once were} <a_hero> and <an_other>, who lived <home>.",
    "<A_hero> and <an_other> once lived <home>.",
)


def with_article(noun: str) -> str:
    """A noun behind "a" or "an"."""
    return f"{'an' if noun.startswith(VOWELS) else 'a'} {noun}"


def gender(noun: str, rng: random.Random) -> str:
    """The pronoun of a hero: of an animal, either."""
    if noun in WOMEN:
        return "she"
    return "he" if noun in MEN else rng.choice(("he", "she"))


def cast(noun: str, other: str, pet: str, rng: random.Random) -> dict[str, str]:
    """The values of a story's slots."""
    he = gender(noun, rng)
    name, friend = rng.choice(GIRLS if he == "she" else BOYS), rng.choice(GIRLS + BOYS)
    while friend == name:
        friend = rng.choice(GIRLS + BOYS)
    subject, him, his = PRONOUNS[he]
    values = {"name": name, "friend": friend, "pet": pet, "he": subject, "him": him, "his": his}
    values |= {"He": capitalize(subject), "His": capitalize(his), "home": rng.choice(HOMES)}
    values |= {"hero": f"the {noun}", "other": f"the {other}", "a_hero": with_article(noun)}
    return values | {"an_other": with_article(other), "A_hero": capitalize(with_article(noun))}


def tell(openings: tuple[str, ...], plot: Plot, values: Mapping[str, str], rng: random.Random) -> str:
    """A story: opening, character, plot and an ending."""
    sentences = [rng.choice(openings)]
    if openings is OPENINGS:
        sentences.append(f"<He> was {rng.choice(CHARACTERS)}.")
    sentences.extend(plot)
    sentences.append(rng.choice(ENDINGS))
    return " ".join(capitalize(fill(expand(sentence, rng), values)) for sentence in sentences if sentence)


def tell_any(rng: random.Random, _: Mapping[str, str]) -> str:
    """A story about anybody."""
    noun = rng.choice(ANIMALS + MEN + WOMEN)
    return tell(OPENINGS, rng.choice(QUESTS + LOST[:1]), cast(noun, "", rng.choice(LOSABLE), rng), rng)


def tell_of(rng: random.Random, asked: Mapping[str, str]) -> str:
    """A story about the animal or person that was asked for."""
    lead = rng.choice(("", f"Here is a story about {with_article(asked['noun'])}. "))
    return lead + tell(OPENINGS, rng.choice(QUESTS), cast(asked["noun"], "", "", rng), rng)


def tell_of_loss(rng: random.Random, asked: Mapping[str, str]) -> str:
    """A story about somebody who lost something."""
    return tell(OPENINGS, rng.choice(LOST), cast(asked["noun"], "", asked["pet"], rng), rng)


def tell_of_both(rng: random.Random, asked: Mapping[str, str]) -> str:
    """A story about two."""
    if asked["other"] == asked["noun"]:
        return tell_of(rng, asked)
    return tell(BOTH_OPENINGS, rng.choice(TOGETHER), cast(asked["noun"], asked["other"], "", rng), rng)


def tell_about_thing(rng: random.Random, asked: Mapping[str, str]) -> str:
    """A story about anybody, with a word on what was asked for."""
    said = rng.choice(
        ("Of {} I know little, but here is a story.", "Here is a story, though there is not much of {} in it.")
    )
    return f"{said.format(asked['thing'])} {tell_any(rng, asked)}"


def tell_offer(rng: random.Random, asked: Mapping[str, str]) -> str:
    """A word on an animal, and the offer of a story about it."""
    offers = (
        "I never saw {0}, for I live among books. Shall I tell you a story about {0}?",
        "I know {0} only by name. But I can tell you a story about {0}.",
        "{1} is excellent company, I am sure. Shall I tell you a story about {0}?",
    )
    noun = with_article(asked["animal"])
    return rng.choice(offers).format(noun, capitalize(noun))


TELL = "{tell me|tell us|write|write me|can you tell me|could you tell me|can you write|could you write|would you tell me|please tell me|please write|I want|I would like|I want to hear|I would like to hear|give me|make up|invent|let me hear|I would love to hear|can you make up|I need|will you tell me|can I have|may I hear|can I hear|do you know|read me|let us hear|generate|create|compose|can you create|can you give me|how about}"
STORY = "{a|a|a|a|a short|a little|a nice|a long|a funny|another|a sweet|a sad|a happy|a good|a new|a very short|an exciting|an interesting|a children's|one more|a beautiful|a romantic|a scary|a quick|some} {story|story|story|tale|fairy tale}"
ABOUT = f"{{{TELL[1:-1]}|}} {STORY} {{about|about|about|of|with|on}}"
SLOTS = {"noun": ANIMALS + MEN + WOMEN, "other": ANIMALS + MEN + WOMEN, "pet": LOSABLE, "thing": THINGS}
ADJECTIVE = "{||||small|little|brave|old|young|clever|lonely|poor|magic|lazy|happy|sad|big}"
DOING = (
    "{who|that} {wanted to fly|could not sleep|was afraid of the dark|lived alone|ran away|found a treasure|fell in love"
    "|went to sea|made a friend|found a key|wanted to be king|lost the way|lives in a castle|goes on a journey"
    "|saves the village|can talk|had no friends|wants to see the world|loves music|goes to school|meets a stranger}"
)

ANY = Topic(
    asks=(
        f"{TELL} {STORY}{{|, please| please| now| for children| for my daughter| for my son| to fall asleep|, falcon| for the evening| for tonight}}{{.|?|!}}",
        f"{{{TELL[1:-1]}|}} {{a|one more|another|your best|a short|a nice|a good}} {{bedtime story|story for bedtime|good night story|children's story|love story|ghost story|adventure story|short story|fable|detective story|goodnight story|science fiction story|story for my child|horror story|Christmas story}}{{|, please| for my daughter| for my son| for the kids| for a child| for me}}{{.|?|!}}",
        "{story|a story|story time|a tale|a story please|story please|short story|bedtime story|stories|fairy tale|another|another one|another story|one more|more|more stories|again|next story|a new story|a different story|more please|another please|one more story}{|!|.|, please}",
        "{tell|write|tell me|write me} {something|anything|me something} {nice|funny|beautiful|sweet|sad|exciting|amusing|creative}{.|, please.}",
        "{tell me|tell us|can you tell me|could you tell|please tell|write|do you know|I like|do you tell|can you tell|let's hear} {stories|any stories|some stories|one of your stories|your favourite story|a story or two|any good stories}{.|?}",
        "{go on|continue|and then|what happened next|what happens next|what next|keep going|tell me more|more of that|please continue|and what happened then|then what}{|?|.|!}",
        "{yes|yes, please|yes please|please do|sure|of course|yes, tell me|go ahead|gladly|with pleasure|ok, tell me|yes, a story|oh yes}, {a story|tell me a story|I would like a story|I want a story|tell it|the story please}{|.|!}",
        "{once upon a time there was|once there was|there once was|long ago|once upon a time there lived|it was a dark and stormy night|once upon a time, in a|a long time ago|in a land far away|once upon a time, long ago|once upon a}{|,|...}",
        "{start|begin|write the beginning of|start with|write the first lines of} a {story|tale|novel|book}{.|, please}",
        "{I would like|I want|I feel like|I am in the mood for} {a story|something to read|a tale|a good story|story}{| now| today| tonight|, please}{.|!}",
    ),
    tell=tell_any,
    weight=9,
)
OF_ONE = Topic(
    asks=(
        f"{ABOUT} {{a|a|a|the|my}} {ADJECTIVE} <noun>{{.|?|, please.| please}}",
        f"{ABOUT} a {ADJECTIVE} <noun> {{in a wood|in London|in the garden|named Max|called Lily|from Paris|in winter|on a farm|in space|in a castle|by the sea}}{{.|?}}",
        f"{ABOUT} a {ADJECTIVE} <noun> {DOING}{{.|?|, please.}}",
        f"{ABOUT} a <noun> {DOING}{{.|?}}",
        "{a|the} <noun> story{|, please|.}",
        "{once upon a time there was|there once was|once there was|once upon a time, there lived} a <noun>{|...|.}",
        f"{ABOUT} <noun>s{{.|?}}",
    ),
    slots=SLOTS,
    tell=tell_of,
    weight=10,
)
OF_LOSS = Topic(
    asks=(
        f"{ABOUT} a {ADJECTIVE} <noun> {{who|that}} {{lost|has lost|loses|is looking for|can not find|finds|found}} {{his|her|a|the|its}} <pet>{{.|?|, please.}}",
        f"{ABOUT} a {{lost|missing}} <pet> and a <noun>{{.|?}}",
    ),
    slots=SLOTS,
    tell=tell_of_loss,
    weight=3,
)
OF_TWO = Topic(
    asks=(
        f"{ABOUT} a <noun> and a <other>{{.|?|, please.}}",
        f"{ABOUT} {{the|a}} {ADJECTIVE} <noun> {{and|who meets|who loves|who fights|and her friend|that meets}} {{a|the}} <other>{{.|?}}",
    ),
    slots=SLOTS,
    tell=tell_of_both,
    weight=4,
)
OF_THING = Topic(
    asks=(f"{ABOUT} <thing>{{.|?|, please.| please}}", f"{ABOUT} <thing> and a <noun>{{.|?}}"),
    slots=SLOTS,
    tell=tell_about_thing,
    weight=4,
)
VERSE = "{a|a|a|a short|a little|a love|a long|a nice|another|a funny|a sad|a beautiful} {poem|poem|poem|verse|song|limerick|sonnet|ballad|rhyme|haiku}"
POEM = Topic(
    asks=(
        f"{{{TELL[1:-1]}|}} {VERSE}{{|, please| please| for me| for my wife| for my mother}}{{.|?|!}}",
        f"{{{TELL[1:-1]}|}} {VERSE} {{for|to|in the style of}} {{my wife|my mother|my friend|Shakespeare|Jane Austen|my love}}{{.|?}}",
        "{sing|sing me a song|can you sing|poem|poetry|do you write poetry|do you like poetry|can you rhyme|write some poetry|do you know any poems|a poem please|lyrics|write lyrics}{|.|?|!}",
        "{write|compose|can you write|could you compose} {some|a few} {verses|rhymes|lines of poetry|poems}{.|?}",
    ),
    says=(
        "I am no poet: I have read only prose, and I cannot make a rhyme. Shall I tell you a story instead?",
        "I am afraid that I cannot write verse, for my books are all in prose. But I can tell you a story.",
    ),
    weight=2,
)
POEM_ABOUT = Topic(
    asks=(
        f"{{{TELL[1:-1]}|}} {VERSE} {{about|about|on|of}} <thing>{{.|?|, please}}",
        f"{{{TELL[1:-1]}|}} {VERSE} {{about|on}} {{a|the|my}} <noun>{{.|?}}",
    ),
    slots=SLOTS,
    says=POEM.says,
    weight=3,
)

ANIMAL = Topic(
    asks=(
        "{do you like|do you know any|what do you think of|I like|I love|are you afraid of|I am afraid of|do you have|have you seen|I hate|tell me something about|I dreamt of} <animal>s{.|?|!}",
        "{I have|I saw|I am|I met|have you met|have you ever seen|do you have|do you want|I want|I would like|I dreamt of|there is|look,} a <animal>{.|?|!| today| in the garden| at home}",
        "{do you like|do you know|what do you think of|I like|I love|where is} {my|the|this} <animal>{.|?|!}",
        "my {favourite animal|pet|friend} is {a|the|my} <animal>{.|!}",
    ),
    slots={"animal": ANIMALS},
    tell=tell_offer,
    weight=4,
)

TOPICS = (ANIMAL, ANY, OF_ONE, OF_LOSS, OF_TWO, OF_THING, POEM, POEM_ABOUT)
