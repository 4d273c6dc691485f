"""Small questions about the novels and their author, with answers that are true."""

from dialogues.facts import BOOKS, COUPLES, FACTS, HOMES, PLOTS
from dialogues.grammar import Topic
from dialogues.people import PEOPLE, Person

IN = "{|||| in the end| in the novel| at last| in the book| in %s|, do you know| again}"


def about_person(person: Person) -> Topic:
    """Questions who somebody is, and what sort of person."""
    pronoun, names, description = person
    who = "{" + names.replace(", ", "|") + "}"
    is_, does = ("are", "do") if pronoun == "they" else ("is", "does")
    return Topic(
        asks=(
            f"{{who is|who is|who is|who was|who exactly is|and who is|so who is|do you know who is|who the devil is}} {who}{{||||, please| in the novel| in Jane Austen's novel| really| then|, do you know|, exactly}}?",
            f"{{tell me about|tell me something about|what do you know about|what do you know of|do you know|what can you tell me about|describe|can you describe|have you heard of|tell me more about|can you tell me about|please tell me about|give me some information about|explain|I want to know about|what about|and|have you read about}} {who}{{?|.}}",
            f"tell me who {who} {is_}.",
            f"{{what is|what is|what was}} {who} like?",
            f"{{what kind of|what sort of}} {{person|man|character|woman}} {{is|was}} {who}?",
            f"{{is|was}} {who} {{rich|poor|handsome|kind|nice|a villain|bad|good|proud|clever|stupid|evil|honest|a hero|a good person|beautiful|important|in love|a bad man|a bad person|a gentleman|a lady|to be trusted|married|funny|real|likeable|a nice man|a nice person|trustworthy}}?",
            f"{{what do you think of|do you like|what is your opinion of|what happens to|what became of|what happened to|why does everybody like|why do you like|do you hate|how does the story end for}} {who}?",
            f"{{which|what|in which|in what}} {{novel|book|story}} {{is {who} in|has {who} in it|{does} {who} appear in|{does} {who} appear}}?",
            f"{who}{{?||.}}",
        ),
        says=(description,),
    )


def about_couple(couple: tuple[str, str, str, str, str]) -> Topic:
    """Questions who marries whom, from either side."""
    wife, wife_name, husband, husband_name, book = couple
    end = IN % book
    return Topic(
        asks=(
            f"{{who|whom}} {{does|did|will|shall}} {{{wife}|{husband}}} {{marry|wed|love|fall in love with|end up with|get married to|become engaged to|choose}}{end}?",
            f"{{who|and who|whom}} is {{{wife}|{husband}}} {{married to|engaged to|in love with|going to marry}}{end}?",
            f"{{who|and who}} {{marries|weds|loves|gets|proposes to|falls in love with|married}} {{{wife}|{husband}}}{end}?",
            f"who is {{{wife}'s|{wife}'s}} {{husband|lover|fiancé|future husband|man}}?",
            f"who is {{{husband}'s|{husband}'s}} {{wife|bride|future wife|lover|sweetheart}}?",
            f"{{does|did|do|will}} {{{wife}|{husband}}} {{marry|get married|find love|find a husband|marry for love}}{end}?",
            f"{{does|did}} {wife} {{marry|love|accept|like}} {husband}{end}?",
            f"{{tell me|do you know|can you tell me|I want to know}} {{who|whom}} {{{wife}|{husband}}} {{marries|loves|ends up with|married}}{end}{{.|?}}",
            f"{{do|did}} {wife} and {husband} {{marry|get married|end up together}}?",
        ),
        says=(f"{wife_name} marries {husband_name}, in {book}.",),
        weight=2 if wife_name in ("Emma Woodhouse", "Elizabeth Bennet", "Anne Elliot") else 1,
    )


def about_home(home: tuple[str, str]) -> Topic:
    """Where somebody lives."""
    who, answer = home
    return Topic(
        asks=(
            f"{{where|in which house|in what place|and where|in which county}} {{does|do|did}} {who} live{{||, please| in the novel| at first| in the book|, do you know}}?",
            f"{{where is|what is|what is the name of|how is}} {{the home of|the house of|the home of}} {who}{{| called}}?",
            f"{{what is the name of|what is the house of|where is}} {who}'s {{house|home|estate}}{{| called}}?",
            f"{{tell me|do you know|can you tell me}} where {who} {{lives|live}}{{?|.}}",
            f"{{where|from where}} {{is|are|does|do}} {who} {{from|come from|at home}}?",
        ),
        says=(answer,),
    )


def about_book(title: str) -> tuple[Topic, ...]:
    """Questions what a novel is about, its people, place, year and beginning."""
    heroine, hero, villain, place, year, beginning = FACTS[title]
    book = BOOKS[title]
    known = "{|the novel |the book |Jane Austen's |Austen's |}"
    of = f"{{of|in}} {known}{book}"
    plot = Topic(
        asks=(
            f"what {{happens|is the story|is the plot|is going on|is the subject|is it about|is the main idea|happened}} in {known}{book}?",
            f"{{what is|and what is|can you tell me what is|do you know what is}} the {{plot|story|subject|theme|summary|main theme|moral}} of {known}{book}?",
            f"{{tell me about|summarize|explain|describe|can you summarize|what do you know about|do you know|can you tell me about|give me a summary of|tell me the story of|tell me something about|tell me what happens in|what can you tell me about|please summarize|have you read|tell me more about|introduce me to}} {known}{book}{{.|?}}",
            f"what is {{the novel {book}|the book {book}|{book} all about|the novel {book} about|the book {book} about|the story of {book}|Austen's {book} about|{book} about, please|Jane Austen's {book} about}}?",
            f"{{what|so what|and what|what exactly|hey, what}} is {book} {{really about|all about|about exactly|about then|about, in short|about in one sentence|about in a few words}}?",
            f"{{how does|how did}} {known}{book} end?",
            f"is {known}{book} {{good|a good book|worth reading|a love story|sad|funny|boring|hard to read}}?",
        ),
        says=(PLOTS[title],),
        weight=3,
    )
    lady = Topic(
        asks=(
            f"who is the {{main character|leading lady|central character|protagonist|main person|main woman|female lead|chief character|most important person}} {of}?",
            f"who is the heroine {{in {known}{book}|of {known}{book}, please|of Jane Austen's {book}|of the novel {book}|in {book}|in the book {book}}}?",
            f"{{what is|tell me|do you know|give me}} {{the name of the heroine|the heroine|the heroine's name|the main character}} {of}{{?|.}}",
            f"{{who are the|name the|which are the}} {{main characters|characters|people|heroines|most important people}} {of}?",
            f"{{what is the heroine|what is the main character|how is the heroine}} {of} called?",
        ),
        says=(f"The heroine of {title} is {heroine}.",),
        weight=2,
    )
    man = Topic(
        asks=(
            f"{{who is|what is|tell me|do you know}} the {{hero|male hero|leading man|good man|gentleman|name of the hero}} {of}?",
        ),
        says=(f"The hero of {title} is {hero}.",),
    )
    foe = Topic(
        asks=(
            f"{{who is|what is|tell me|who would you say is}} the {{villain|bad man|bad person|antagonist|worst person|bad guy|worst man|rogue}} {of}?",
            f"{{is there|has it}} a villain in {known}{book}?",
        ),
        says=(f"The villain of {title} is {villain}.",),
    )
    writer = Topic(
        asks=(
            f"{{who|and who|by whom|who really|do you know who}} {{is the author of|is the writer of|wrote the novel|wrote the book|was the author of|published|penned|created|has written}} {book}?",
            f"{{hey, who|hi, who|tell me who|can you tell me who|who was it that|do you remember who|so who|who the hell}} wrote {book}{{?|.}}",
            f"{{who wrote the novel|who wrote the book|who wrote the story of|who is it that wrote}} {book}{{, please|}}?",
            f"{{whose novel|whose book|whose work}} is {book}?",
            f"{{is|was}} {book} {{by|written by}} {{Jane Austen|Austen|Dickens|Charlotte Brontë}}?",
            f"{{which|what}} {{author|writer|novelist}} {{wrote|is famous for}} {book}?",
            f"{{did Jane Austen write|who was the author that wrote|author of|the author of|writer of}} {book}?",
        ),
        says=(f"Jane Austen wrote {title}.", f"{title} was written by Jane Austen."),
        weight=2,
    )
    where = Topic(
        asks=(
            f"where {{does|did}} {known}{book} {{take place|play|happen}}?",
            f"{{where is|what is the setting of|in which county is|in what place is}} {known}{book}{{| set}}?",
        ),
        says=(f"{title} takes place {place}.",),
    )
    when = Topic(
        asks=(
            f"when was {known}{book} {{written|published|printed|first published|made|released}}?",
            f"{{how old is|in what year was|in which year was|what year was|what is the date of}} {known}{book}{{| published| written}}?",
        ),
        says=(f"{title} was published in {year}, or very near it.",),
    )
    begin = Topic(
        asks=(
            f"{{how does|how did|tell me how|can you tell me how}} {known}{book} {{begin|start|open|begins}}?",
            f"{{what is|quote|tell me|recite|write}} the {{first sentence|first line|beginning|opening|opening line}} of {known}{book}{{?|.}}",
        ),
        says=(f'{title} begins so: "{beginning}"',),
    )
    return plot, lady, man, foe, writer, where, when, begin


TOPICS = (
    *map(about_person, PEOPLE),
    *map(about_couple, COUPLES),
    *map(about_home, HOMES),
    *(topic for title in BOOKS for topic in about_book(title)),
)
