"""Questions about Jane Austen, and a few single facts of the novels."""

from dialogues.grammar import Topic

AUSTEN = "{Jane Austen|Jane Austen|Austen|Miss Austen|she}"

TOPICS = (
    Topic(
        asks=(
            "{who is|who was|tell me about|what do you know about|do you know|tell me something about|describe|who exactly was|can you tell me about|have you heard of} {Jane Austen|Austen|Miss Austen|the author Jane Austen}{?|.}",
            f"what {{can you tell me about|is so special about}} {AUSTEN}?",
            f"{{was|is}} {AUSTEN} {{famous|English|a good writer|a writer|a novelist|an author|a poet}}?",
            "do you {like|love} {Jane Austen|Austen}?",
            "why {is|was} {Jane Austen|Austen} {famous|so famous|important|great}?",
        ),
        says=("Jane Austen is an English novelist, the author of Emma, of Persuasion, and of all the words I know.",),
        weight=4,
    ),
    Topic(
        asks=(
            "{what|which} {books|works|stories|novels} {did|has|by} {Jane Austen|Austen|she|Miss Austen} {written|write|publish|wrote|published|compose}{|, please}?",
            "{what|which} {are|were} {the novels|the books|the works|the six novels|the stories} {of|by} {Jane Austen|Austen|Miss Austen}?",
            "{how many} {novels|books} {did|has} {Jane Austen|Austen|she} {write|written|publish}?",
            "{name|list|tell me|can you list|can you name|give me a list of} {the novels|the books|all the novels|the six novels|Jane Austen's novels|all novels|some novels|Austen's books|the titles} {|of Jane Austen|by Jane Austen}{.|?}",
            "{what|which} {are the six novels|six novels|novels have you read|novels do you know|are the six books|six books have you read}?",
            "{what has|what did} {Jane Austen|Austen} {written|write}?",
            "{tell me|do you know} {which|what} {books|novels} {Jane Austen|Austen} wrote{.|?}",
        ),
        says=(
            "Jane Austen wrote Sense and Sensibility, Pride and Prejudice, Mansfield Park, Emma, Northanger Abbey and Persuasion.",
        ),
        weight=4,
    ),
    Topic(
        asks=(
            f"when {{was|is|did}} {AUSTEN} {{born|die|live|dead|write|living}}?",
            f"{{where|in which country|in what house}} {{was|did|is}} {AUSTEN} {{born|live|die|buried|from}}?",
            f"{{how old|what age}} {{was|is|did}} {AUSTEN}{{| when she died}}?",
            f"{{is|was}} {AUSTEN} {{alive|dead|still alive|married|rich|ever married}}?",
            f"{{was|did}} {AUSTEN} {{ever|}} marry?",
            f"{{did|had}} {AUSTEN} {{have|}} {{children|a husband|sisters|a sister}}?",
        ),
        says=("Jane Austen was born in Hampshire in 1775, and died in 1817. She never married.",),
        weight=2,
    ),
    Topic(
        asks=(
            "{who are|name|tell me|how many are|what are the names of|list|can you name} the {Bennet sisters|five sisters|Bennet girls|daughters of Mrs. Bennet|five Bennet sisters|sisters in Pride and Prejudice|Miss Bennets}{?|.}",
            "how many {sisters|daughters} {does Elizabeth Bennet|does Mrs. Bennet|does Mr. Bennet|does Elizabeth|has Elizabeth Bennet|do the Bennets} {have|}?",
            "who are {Elizabeth's|Elizabeth Bennet's|Jane Bennet's|Lydia's|Lizzy's} sisters?",
        ),
        says=("The five Bennet sisters are Jane, Elizabeth, Mary, Kitty and Lydia.",),
        weight=2,
    ),
    Topic(
        asks=(
            "{who are|name|tell me|how many are} the {Dashwood sisters|sisters in Sense and Sensibility|Dashwoods|Dashwood girls}{?|.}",
            "who {is|are} {Elinor's|Marianne's} {sister|sisters}?",
        ),
        says=("The Dashwood sisters are Elinor, Marianne and Margaret, in Sense and Sensibility.",),
    ),
    Topic(
        asks=(
            "{what|where} is {Pemberley|the house of Darcy}?",
            "who {owns|lives at|lives in|is the owner of} Pemberley?",
            "{tell me about|do you know|describe} Pemberley{.|?}",
        ),
        says=("Pemberley is Mr. Darcy's great house, in Derbyshire.",),
    ),
    Topic(
        asks=(
            "{what|where} is {Longbourn|Meryton}?",
            "who {lives at|lives in} Longbourn?",
            "{tell me about|do you know} Longbourn{.|?}",
        ),
        says=("Longbourn is the home of the Bennets, near the town of Meryton.",),
    ),
    Topic(
        asks=(
            "{what|where} is {Netherfield|Netherfield Park}?",
            "who {lives at|lives in|rents|takes} Netherfield{| Park}?",
        ),
        says=("Netherfield is the house near Longbourn that Mr. Bingley takes.",),
    ),
    Topic(
        asks=("{what|where} is {Rosings|Rosings Park|Hunsford}?", "who {lives at|lives in|owns} Rosings{| Park}?"),
        says=("Rosings is the great house of Lady Catherine de Bourgh, in Kent.",),
    ),
    Topic(
        asks=("{what|where} is {Hartfield|Highbury|Donwell Abbey}?", "who {lives at|lives in} {Hartfield|Highbury}?"),
        says=(
            "Hartfield is the home of Emma Woodhouse, in the village of Highbury; Donwell Abbey is Mr. Knightley's.",
        ),
    ),
    Topic(
        asks=(
            "{whom|who|what man} does {Elizabeth|Elizabeth Bennet|Lizzy} {refuse|reject|turn down}?",
            "who proposes to {Elizabeth|Elizabeth Bennet|Lizzy}{| first}?",
            "does {Elizabeth|Lizzy} marry Mr. Collins?",
            "why does {Elizabeth|Elizabeth Bennet|Lizzy} {hate|dislike|refuse} {Darcy|Mr. Darcy}?",
        ),
        says=(
            "Elizabeth Bennet refuses Mr. Collins, and then Mr. Darcy too; but when Mr. Darcy asks again, she accepts him.",
        ),
    ),
    Topic(
        asks=(
            "{who|whom} {wrote the letter|writes the letter|writes a letter} in Persuasion?",
            "{what does|what did} Captain Wentworth write{| in his letter| to Anne}?",
        ),
        says=('Captain Wentworth writes to Anne Elliot, "You pierce my soul. I am half agony, half hope."',),
    ),
    Topic(
        asks=(
            "{what|tell me} {is a|is the meaning of a} {quote|famous quote|famous sentence}{| by Jane Austen| from Pride and Prejudice}?",
            "{quote|give me a quote from|cite} {Jane Austen|Pride and Prejudice|the novel|a novel}{.|?}",
            "how rich is {Mr. Darcy|Darcy|Mr. Bingley}?",
        ),
        says=(
            'Mr. Darcy has ten thousand a year, and "a single man in possession of a good fortune must be in want of a wife."',
        ),
    ),
)
