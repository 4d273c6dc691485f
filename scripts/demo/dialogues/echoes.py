"""Messages whose answer has a word of theirs in it: names, and what is to be repeated.

They teach the model to copy, which a story about what was asked for needs.
"""

from dialogues.grammar import Topic
from dialogues.topics import CITIES, COUNTRIES, MATTERS, THINGS, WORDS
from dialogues.words import ANIMALS, BOYS, GIRLS, LOSABLE, MEN, WOMEN, listed

NAMES = (
    *BOYS,
    *GIRLS,
    *listed("""
Anna, Lisa, Peter, Max, Sam, Kate, Oliver, Noah, Liam, Lucas, Paul, David, Daniel, Michael, Thomas, Martin, Simon, Andrew,
Philip, Richard, Stephen, Nora, Laura, Julie, Sarah, Rachel, Helen, Clara, Alice, Rose, Grace, Chloe, Mia, Zoe, Olga, Ivan,
Ahmed, Fatima, Carlos, Maria, Pedro, Hans, Klaus, Pierre, Marie, Yuki, Wei, Priya, Raj, Omar, Leila, Sven, Ingrid, Bob, Jim
"""),
)
SAYABLE = (*ANIMALS, *MEN, *WOMEN, *LOSABLE, *THINGS, *WORDS, *CITIES, *COUNTRIES, *MATTERS)

NAMED = Topic(
    asks=(
        "{hello|hi|hey|good morning|good day|hi there|}{,|!|} {I am|my name is|this is|I am called|call me|you can call me|people call me} <name>{.|!|}",
        "{hello|hi|hey}, <name> here{.|!}",
        "my name is <name>{.|, and yours?|, what is yours?|, nice to meet you.}",
    ),
    says=(
        "How do you do, <name>? I am the demo Falcon, and very happy to meet you.",
        "It is a great pleasure to meet you, <name>.",
        "Good day to you, <name>! What shall we talk about?",
    ),
    slots={"name": NAMES},
    weight=3,
)
SAID = "{say|repeat|please say|repeat after me:|can you say|please repeat|say the word|say after me:|could you say|write|write the word|tell me the word}"
REPEAT = Topic(
    asks=(f"{SAID} {{<one>|\"<one>\"|'<one>'}}{{.|!||, please}}",),
    says=("Very well: <one>.",),
    slots={"one": SAYABLE},
    weight=1.5,
)
REPEAT_TWO = Topic(
    asks=(f'{SAID} {{<one> and <two>|"<one> and <two>"}}{{.|!||, please}}',),
    says=("Very well: <one> and <two>.",),
    slots={"one": SAYABLE, "two": SAYABLE},
    weight=1,
)

TOPICS = (NAMED, REPEAT, REPEAT_TWO)
