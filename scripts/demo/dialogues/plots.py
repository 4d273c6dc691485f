"""Plots of short stories: each a list of sentences to be told in order, every one with other wordings.

Slots: <name> the hero's name, <hero> "the fox", <he>, <him>, <his>, <He>, <His> pronouns, <friend> another's name,
<other> "the hare", <pet> "dog" or what else was lost.
"""

Plot = tuple[str, ...]

LOST: tuple[Plot, ...] = (
    (
        "One {morning|evening|day} <his> <pet> was nowhere to be found.",
        "<name> looked {in the garden|in every room|along the lane|behind every hedge}, and called until it was {quite dark|nearly night}, but {nothing answered|there was no answer|it was all in vain}.",
        '{At last|Then} {an old woman|a kind neighbour|a little boy|the miller} {came to the gate|stopped in the lane} and said, "I have seen {what you are looking for|your <pet>} {by the river|near the old bridge|in my barn}."',
        "<name> {ran there at once|went with all haste}, and there was the <pet>, {safe and well|none the worse for the adventure}.",
    ),
    (
        "<He> had a <pet>, and was never happy without it.",
        "But one {cold|rainy|windy} {day|morning} the <pet> was {lost|gone}, and <name> {wept|sat down and wept|was in despair}.",
        "<friend>, who lived {in the next house|across the lane|close by}, {came to help|would not see <him> unhappy}, and together they searched {the whole village|every field|the wood}.",
        "In the evening they found the <pet> {asleep under a tree|waiting at the church door|beside the mill}, and <name> {had never been so glad|was the happiest creature in the world}.",
    ),
)

QUESTS: tuple[Plot, ...] = (
    (
        "One {evening|night} a great storm came, and {blew down|carried away} the roof of <his> house.",
        "<name> {knocked at every door|asked every neighbour for help}, but {nobody|no one} would open.",
        'Only <friend>, {the poorest of them all|who had hardly room enough for one}, said, "Come in and be warm."',
        "In the spring they built a new house together, {and there was room in it for both|and it was large enough for two}.",
    ),
    (
        "<He> {wished|longed} {above all things|more than any thing} to see the {sea|great town|mountains}, {which was|though it was} many miles away.",
        '"You are too {small|young|foolish}," said {the neighbours|everybody}; but <name> {set out|went} one fine morning {all alone|with a piece of bread and a light heart}.',
        "The road was long, and more than once <he> {thought of turning back|was ready to cry}.",
        "On the {third|seventh|fifth} day <he> {stood on a hill|came to the top of a hill}, and there it was, {bright in the sun|more beautiful than any dream}.",
    ),
    (
        "One day <he> found a {gold ring|silver key|letter|purse full of money} {in the lane|under a stone|beside the river}.",
        "{Many|Another} would have kept it, but <name> {went from house to house|asked everybody} to find {its owner|the person who had lost it}.",
        "It belonged to {an old lady|a poor widow|a sailor}, who had {looked for it|wept for it} {for a year|many days}.",
        '"You are {honest|good}," said {she|the owner}, "and from this day you shall {never want a friend|dine at my table}."',
    ),
    (
        "Now <name> was {proud|vain}, and {would speak to nobody|thought nobody good enough for company}.",
        "One {winter|cold} night <he> fell into a {ditch|deep ditch}, and could not get out again.",
        "It was <friend>, {whom <he> had always despised|to whom <he> had never spoken}, who {heard the cry|came with a lantern} and pulled <him> out.",
        "After that night <name> was {proud no more|the best of neighbours}, and the two were {always together|friends for life}.",
    ),
    (
        "<He> was {afraid of the dark|afraid of every thing}, and {never went out after sunset|slept with a candle}.",
        "But one night <friend> {was lost in the wood|was ill}, and {there was nobody else to help|somebody had to fetch the doctor}.",
        "<name> took a lantern, and {walked through the dark wood|went out into the night}, {trembling at every step|with a beating heart}.",
        "<friend> was saved, and <name> found that {the dark is not so dark when one has something to do|courage grows when it is used}.",
    ),
    (
        "Every morning <he> met <friend> {at the gate|beside the river|in the lane}, and every morning <he> was too shy to speak.",
        "A whole {year|summer} went by in this manner.",
        "Then one day it {rained|snowed}, and they {stood under the same tree|had but one umbrella between them}.",
        '"What weather!" said <name>; and {from that day they were never seen apart|they have not stopped talking since}.',
    ),
    (
        "There was to be a {ball|feast|great party} {in the village|at the great house}, and everybody was asked but <name>.",
        "<He> {sat at the window|stayed at home}, and {tried not to mind it|listened to the music from afar}.",
        '{Late in the evening|At ten o\'clock} there was a knock, and there stood <friend>. "It is dull without you," said <friend>. "Come!"',
        "They danced until {the morning|the candles were out}, and <name> {was the happiest of all the guests|never had a happier night}.",
    ),
    (
        "One summer there was no rain, and {the wells were dry|the fields turned brown}.",
        "<name> {went up the hill every day|walked three miles every day} to fetch water, and gave a part of it to an old apple tree.",
        "{Everybody laughed at it|The neighbours called it folly}, but <he> {went on|did not mind}.",
        "In the autumn there were apples enough for the whole village, and nobody laughed any more.",
    ),
    (
        "One summer there was no rain, and {the wells were dry|the fields turned brown}.",
        "<name> {went up the hill every day|walked three miles every day} to fetch water, and gave a part of it to a little rose-bush.",
        "{Everybody laughed at it|The neighbours called it folly}, but <he> {went on|did not mind}.",
        "In the autumn there were roses before every window, and nobody laughed any more.",
    ),
    (
        "<He> quarrelled with <friend> about {a hat|an apple|a foolish joke}, and they {did not speak for a month|would not look at each other}.",
        "The days were {very long and very dull|grey}, and neither would be the first to yield.",
        'At last <name> {baked a cake|wrote a letter|picked a rose} and {left it|laid it} at the door of <friend>, {without a word|with a note that said only, "Forgive me"}.',
        "That same evening they {sat by the fire together|took a walk together}, and {could not remember what the quarrel was about|laughed at their own folly}.",
    ),
    (
        "One night a {thief|stranger} came to the house, and wanted {the silver spoons|all that there was to eat}.",
        '"You look {tired|cold}," said <name>. "Sit down and have some {tea|soup} first."',
        "The {thief|man} sat down, and ate, and {began to weep|was ashamed}.",
        "He went away {with nothing but a full stomach|without taking any thing}, and {came back in the spring with a basket of eggs|was an honest man from that hour}.",
    ),
)

TOGETHER: tuple[Plot, ...] = (
    (
        "Everybody said that <hero> and <other> {could never be friends|must be enemies}, and they {believed it themselves|did not speak}.",
        "One {winter|stormy} night {the river rose|there was a great flood}, and they {took refuge on the same hill|sat together on the same roof} until the morning.",
        "They had {one blanket|one loaf of bread} between them, and {shared it fairly|much to talk about}.",
        "{Since that night|From that day} <hero> and <other> {have been the best of friends|were always seen together}.",
    ),
    (
        '<hero> said, "I am the {cleverest|strongest|best} creature in the county," and <other> said, "No, I am."',
        "So they {ran a race|tried who could cross the river first}, and {both fell into the water|both were lost in the wood}.",
        "<other> pulled <hero> out by the {ear|coat}, and <hero> {carried <other> home|found the way home for both}.",
        "They never settled who was the {better|cleverer} of the two, and {they did not care|it did not matter}.",
    ),
    (
        "<hero> had plenty of {bread|apples}, and <other> had a warm fire, but neither had any company.",
        "One {evening|snowy evening} <hero> knocked at the door of <other>, {very timidly|with a basket}.",
        '"Come in," said <other>; "I have been waiting for somebody to knock {all the winter|for years}."',
        "They dined together that night, and {every night after it|on every night of that winter}.",
    ),
)

ENDINGS = (
    "And so all was well.",
    "And that is the end of the story.",
    "There was never a happier ending.",
    "So it is that kindness is never wasted.",
    "I had it from a bird, who was there.",
    "",
)
