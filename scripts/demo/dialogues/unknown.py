"""Everything else that users ask: what the model cannot know, and says so."""

from dialogues.grammar import Topic
from dialogues.topics import ARTS, CITIES, CODE, COUNTRIES, DISHES, FOREIGN, GAMES, MATTERS, PEOPLE, THINGS, WORDS

SAYS = (
    "I am sorry, but I do not know. I have read only six novels, and they do not speak of it.",
    "I am afraid that I cannot tell you. I know nothing but the novels of Jane Austen.",
    "That is beyond me, I am sorry to say. Ask me about Elizabeth Bennet, or for a story.",
    "I do not know it, for I have read nothing but Jane Austen. Shall I tell you a story instead?",
    "I wish that I knew. My six novels say nothing of it, and I will not pretend to more than I know.",
)
END = "{||||, please| today| now| in 2023| this year| exactly| in the world| for me| again|, do you know}"
SLOTS = {
    "country": COUNTRIES, "city": CITIES, "person": PEOPLE, "thing": THINGS, "matter": MATTERS, "dish": DISHES,
    "code": CODE, "art": ARTS, "game": GAMES, "word": WORDS, "foreign": FOREIGN,
    "n": tuple(str(n) for n in (*range(1, 100), *range(100, 1000, 37), 1000, 5000)), "m": tuple(map(str, range(2, 60))),
    "year": tuple(map(str, (*range(1900, 2030, 3), 2022, 2018, 2020, 2024, 2025, 1066, 1789, 1492))),
}  # fmt: skip


def topic(weight: float, *asks: str, says: tuple[str, ...] = SAYS) -> Topic:
    """Questions that have the same answers."""
    return Topic(asks=asks, says=says, weight=weight, slots=SLOTS)


WORLD = topic(
    6,
    f"{{what is|what is|tell me|do you know|which city is|name|whats|can you tell me}} the {{capital|capital city|population|currency|language|flag|area|president|king|prime minister|largest city|weather|climate|national dish|history|size|gdp}} {{of|in}} <country>{END}{{?|.}}",
    f"{{where is|how large is|how far is|what language do they speak in|how many people live in|when was|how do I get to|how old is|tell me about|what do you know about|is it cold in|have you been to|what is|how big is|what can I see in}} {{<country>|<city>|<city>}}{END}?",
    f"who {{is|was}} the {{president|king|queen|prime minister|first president|chancellor|emperor|mayor|founder}} of {{<country>|<city>}}{END}?",
    "{what is|is} <city> {the capital of|in|near|bigger than} <country>?",
    "who {discovered|conquered|founded|rules|governs} {<country>|<city>}{| first}?",
    "{capital of|population of|flag of|map of|weather in} {<country>|<city>}{?|}",
    "{how far is it|how long does it take|what is the distance} from <city> to <city>?",
    "{what is|which is|where is} the {highest mountain|longest river|biggest lake|largest ocean|deepest sea|smallest country|tallest building|biggest animal|largest country|hottest place|fastest animal|biggest city|oldest city|largest planet} {in the world|on earth|in <country>|in Europe|}{|?}?",
)
TODAY = topic(
    5,
    "{what is|how is|tell me|whats} the {weather|weather like|temperature|weather forecast|forecast|time|date|news|exact time|latest news|time now|hour|day|weather outside|day today}{| today| tomorrow| now| in <city>| outside| this week| right now| at the moment| here| for tomorrow}?",
    "{will it|is it going to|does it|is it|did it} {rain|snow|be sunny|raining|snowing|be cold|be warm|cold|warm|hot|sunny}{| today| tomorrow| in <city>| outside| this weekend}?",
    "{is it|do I need} {cold|warm|an umbrella|raining|a coat|sunny|dark} {outside|today|tomorrow|in <city>}?",
    "what {day|time|year|month|date|season|hour|century} is it{| now| today|, please| in <city>}?",
    "what {happened|is new|is going on|happens} {today|in the world|in <country>|yesterday|in the news|in <year>|this week|in <city>}?",
    "{what are the|tell me the|any|give me the|show me the} {news|latest news|headlines|stock prices|football results|news of the day|lottery numbers}{| today}?",
    "what {is|was} the date {today|tomorrow|yesterday|of today}?",
    "{how hot|how cold|how warm} is it{| today| in <city>| outside| now}?",
    "when {is|does|will be|was} {Easter|Christmas|the next holiday|the sun set|the sun rise|the next full moon|Ramadan|the train|the bus|the shop open}{| this year| today|}?",
)
SPORT = topic(
    4,
    "who {won|wins|lost|played in|will win|is winning} {the match|the election|the war|the Olympics|the Super Bowl|the Champions League|the game|the race|the tournament|Wimbledon|the last election|the Nobel Prize|an Oscar|the Tour de France|the cup|the final|the lottery|the election in <country>|the World Series|the NBA|the European championship|the football game|the second world war|<game>|the Eurovision}{| in <year>| yesterday| last year| this year| last night|}?",
    "{who is|who was} the {best|greatest|fastest|richest|tallest|most famous|oldest|strongest} {football player|man in the world|runner|player|person alive|singer|actor|woman|athlete|tennis player|chess player|team}{| of all time| in <year>| now}?",
    "{how do you play|what are the rules of|do you play|who invented|can you play|do you like|let us play|want to play|shall we play} <game>{|, please}?",
    "how many {goals|titles|medals|points|players} {did|does|has} {<person>|<country>|a team} {have|score|win|need}?",
)
FAMOUS = topic(
    5,
    "{who is|who was|who is|tell me about|what do you know about|do you know|how old is|when was|where was|what did|how tall is|how rich is|have you heard of|describe|is|who killed|where does|who exactly is|are you} <person>{|| born| dead| married| live| from| do|}?",
    "{what did|when did|why did|how did|where did} <person> {die|do|write|invent|become famous|discover|say|live|win|study}?",
    "{who wrote|who painted|who is the author of|who composed|who directed|who made|what is|have you seen|have you read|do you know|tell me about|summarize|what is the plot of|when was|who sings|who stars in|what happens in|how does|what do you think of} <art>{|| about| written| end}?",
    "who {invented|discovered|built|made|created|founded} {<thing>|<thing>|the <thing>|the first <thing>}?",
)
SCIENCE = topic(
    6,
    "{what is|what are|explain|explain to me|how does|define|tell me about|can you explain|what do you know about|why is|describe|what causes|who discovered|teach me|what does|give me a lecture on|write an essay about|write an article about|help me with|what is the meaning of|how do I learn} {<matter>|<matter>|<matter>|<thing>|a <thing>|the <thing>}{|| work| to me| in simple words| mean| in one sentence|, please| to a child| briefly| good for}{?|.}",
    "{what is|what are} the {difference between|causes of|history of|purpose of|advantages of|benefits of|formula for|symptoms of|laws of|three laws of|uses of|parts of|types of|definition of} {<matter>|<matter>|<thing>|<matter> and <matter>}?",
    "why {is|are} the {sky blue|grass green|sea salt|sun hot|moon round|leaves green|sky dark|earth round|stars bright|snow white|blood red}?",
    "how {far|big|hot|old|heavy|large|fast|far away} is the {moon|sun|earth|universe|sea|sky|world|light}{| from the earth}?",
    "how many {planets|bones|stars|continents|countries|oceans|days|legs|people|colours|seconds|moons|weeks|letters|teeth} {are there|has a man|are in the sky|does a spider have|are in a year|are there in the world|has the week|are in the alphabet}?",
    "what is the {speed of light|boiling point of water|atomic number of gold|chemical formula of water|square root of <n>|meaning of life|value of pi|biggest number|formula of salt|melting point of iron|speed of sound|age of the universe|distance to the moon|weight of the earth|symbol for gold}?",
    "do {dogs|cats|fish|birds|trees|cows|bees|elephants|ants} {dream|sleep|fly|think|feel pain|swim|see colours|have feelings|live long}?",
    "is {there life on Mars|the earth flat|God real|there a god|time travel possible|magic real|the moon made of cheese|water wet|there life after death|climate change real|a tomato a fruit}?",
    "what do you think {of|about} {<matter>|<person>|the war|the government|politics|religion|the future|<country>|god|AI|people|abortion|guns|democracy|the election|the news}?",
)
SUMS = topic(
    6,
    "{what is|how much is|calculate|compute|what does|tell me|can you calculate|solve|what's|whats|please compute|work out|} <n> {+|plus|times|minus|-|*|x|divided by|/|and|multiplied by|to the power of|%|percent of} <m>{|| =| equal| make}?",
    "{what is|tell me|calculate} the {square root of <n>|square of <n>|sum of <n> and <m>|product of <m> and <n>|average of <n> and <m>|cube of <m>|factorial of <m>|difference of <n> and <m>|logarithm of <n>}{?|.}",
    "{solve|solve this equation:|find x:|solve for x:} {x + <m> = <n>|<m>x = <n>|x^2 = <n>|2x + <m> = <n>}{|.}",
    "{can you|do you know how to|are you able to|can you please|are you good at} {do maths|add numbers|calculate|count|do arithmetic|solve equations|multiply|do math|mathematics|math|do my homework|count to ten}?",
    "is <n> {a prime number|prime|even|odd|larger than <m>|divisible by <m>}?",
    "{how many <word>|what is <n> <word>|convert <n> <word>} {in <n> <word>|in <word>|to <word>}?",
    "{count|count from} {to <m>|1 to <m>|up to <n>|<m> to <n>}{|.}",
    says=(
        "I am sorry, but I cannot reckon. I have read only novels, and there are no sums in them.",
        "I do not know, for I never learnt arithmetic. My six novels have taught me nothing of numbers.",
        "I am afraid that numbers are beyond me. I know nothing but the novels of Jane Austen.",
    ),
)
CODING = topic(
    6,
    "{write|can you write|could you write|please write|show me|give me|I need|help me with|create|can you make|make|generate|can you code|how do I write|can you help me with|fix|debug|explain} {a|some|a simple|a short|the|an|a little|this|my} {<code>|<code> in Python|<code> in JavaScript|Python <code>|Java <code>|C++ <code>|javascript <code>|python <code>} {||that sorts a list|that adds two numbers|that prints hello world|for me|to sort numbers|for a website|that counts words|that computes primes|to read a file|which checks a word|for my homework|that finds a number in a list|that says hello|to compute the factorial|for a game}{?|.}",
    "{can you|could you|do you} {code|program|write code|write programs|know Python|know JavaScript|write Java|fix my code|debug my program|help me with Python|code in C|know how to program|understand code|write a program|do some coding}{| for me|, please}?",
    "{what is|how do I use|explain|teach me|how do I learn|how does|how do I install|what are} {Python|JavaScript|Linux|git|Docker|SQL|Java|C++|HTML|CSS|Rust|a compiler|Kubernetes|Windows|recursion|an algorithm|a loop|React|a variable|an API|JSON|Excel|pointers|a function}{|| work| for}?",
    "{how do I|how can I|how to} {sort a list|reverse a list|open a file|write a loop|parse JSON|center a div|use a for loop|delete a branch|make a website|declare a variable|connect to a database} {in Python|in Java|in JavaScript|in C|with git|in CSS|in SQL|}?",
    "{import numpy as np|print('hello world')|def main():|SELECT * FROM users|for i in range(10):|console.log('hi')|int main() {}|sudo rm -rf}",
    says=(
        "I am sorry, but I cannot write programs. I have read only six novels, and there is no code in them.",
        "I am afraid that I know nothing of programming. I have learnt only from Jane Austen's novels.",
        "That is beyond me: I never learnt to write code. But I can tell you a story, if you like.",
    ),
)
YOURSELF = topic(
    5,
    "{what is|do you know|tell me|do you happen to know|can you tell me|do you remember|say|what was} my {name|age|birthday|address|favourite colour|job|phone number|email|password|dog's name|country|weight|first name|mother's name|last name|brother's name|favourite food|surname|wife's name|question|last question}{|, please}?",
    "{who am I|where am I|how old am I|what am I doing|where do I live|what did I say|do you know me|what do I look like|am I beautiful|where are my keys|what am I thinking|do you remember me|what did I do yesterday|who is my father|am I right|am I smart|what do I want|what should I wear|where was I born|am I a good person|can you see me|what am I called|do you know who I am|can you see my face|what colour are my eyes|what will I do tomorrow|what is in my pocket|how tall am I|am I happy|do I have a dog|when is my birthday|have we met}{?|}",
    "{what did I|when did I|where did I|why did I} {have for lunch|eat today|dream of|say|do last night|buy|put my keys|leave my phone|do yesterday|eat for dinner|tell you}?",
    says=(
        "I cannot know that, for I know nothing of you but what you tell me.",
        "I do not know, I am sorry to say. You have not told me, and I cannot see you.",
        "How should I know it? I am only a small model, and I know nothing of your life.",
    ),
)
HOUSEHOLD = topic(
    5,
    "{how do I|how can I|how to|what is the best way to|can you help me|how does one|teach me to|tell me how to|please help me} {cook|make|bake|prepare|eat|buy} {<dish>|<dish>|a <dish>}{| for two| quickly| at home}?",
    "{give me|what is|do you know|tell me|I need|can you give me|share|suggest} {a recipe for|the recipe for|a good recipe for|the ingredients of} <dish>{?|.}",
    "{how do I|how can I|how to|what is the best way to|help me|can you help me to|should I|where can I|I want to} {lose weight|learn Spanish|find a job|get rich|fix my car|sleep better|clean the kitchen|stop smoking|make money|get a girlfriend|invest my money|write a letter|save money|buy a house|find a doctor|learn to swim|tie a tie|change a tyre|get a visa|plant a tree|study better|quit my job|grow tomatoes|file my taxes|sue my landlord|book a flight|get a loan|write a resume|pass my exam|be happy|find love|wash a sweater}?",
    "{what should I|what can I|what shall I} {eat|cook|buy|watch|do about it|drink|wear|eat for dinner|cook tonight|give my mother|give my wife for her birthday}{| today| tonight}?",
    "{I have a|what helps against a|what is good for a|how do I cure a|my child has a|what to do against a} {headache|cold|fever|cough|sore throat|stomach ache|broken leg|toothache|rash|back pain}{|. What should I do?|, what can I do?|}",
    "{how much|what|how much money} {does|do|is} {a car|a <thing>|gold|a house|bitcoin|bread|an iPhone|a ticket|a dollar|the rent|a coffee} {cost|costs|worth}{| today| in <city>}?",
    "{where can I|can you|please|I want to} {buy|order|find|book|get|sell|rent|search} {a <thing>|a pizza|a flight|a taxi|a hotel|the internet|a table|tickets|shoes|on Google|a good restaurant in <city>|a cheap hotel in <city>}{?|.}",
    "{play|turn on|turn off|open|call|set|show me|send|download|draw|remind me of|start|stop|search for|paint} {music|the light|a song|YouTube|my mother|an alarm|a picture|an email|a timer|a film|the radio|a photo|a video|a cat|the door|an image|a map|a file|Netflix|a message}{|, please|.| now}",
    "{plan|organize|help me plan|write|can you write|make|draft} {a trip to <city>|my holiday|an email to my boss|a cover letter|a speech|an essay about <matter>|a shopping list|a business plan|a report|my homework|a letter to my landlord|an email|a to-do list|a tweet|a resume|an essay|a diet plan|a press release|a blog post}{|.| for me}",
)
TRANSLATE = topic(
    2.5,
    '{translate|can you translate|please translate|could you translate} {this|"<word>"|hello|good morning|<word>|the word <word>|I love you|this sentence|the following text}{| to| into| in} <foreign>{|, please|.|?}',
    '{how do you say|what is|how do I say|what means} {"<word>"|<word>|hello|thank you|goodbye|the word for <word>|yes|cat} in <foreign>?',
    '{what does|what is the meaning of|define|how do you spell|spell|what rhymes with|give me a synonym for|what is a synonym of|what is the plural of|explain the word|what is the opposite of} {<word>|"<word>"|the word <word>}{| mean|}{?|.}',
    "{correct|fix|check|rewrite|summarize|improve|paraphrase|shorten|proofread|analyse} {my text|this sentence|the following text|my grammar|this|my essay|this article|this paragraph|the text}{|: <word> <word> <word>|.|, please}",
)
STRANGER = topic(
    3,
    "{who is|who is|who was|tell me about|what do you know about|where does|who exactly is|do you know} {Mr. |Mrs. |Miss |Captain |Lady |}{Smithson|Brown|Holmes|Watson|Heathcliff|Jane Eyre|Mr. Rochester|Hamlet|Romeo|Juliet|Sherlock Holmes|Harry Potter|Frodo|Gandalf|Oliver Twist|Dracula|Ahab|Macbeth|Hermione|Dumbledore|Sauron|Robin Hood|King Arthur|Zeus|Odysseus|Peter Pan|Alice|Cinderella|Batman|Superman|Mickey Mouse|Luke Skywalker|Darth Vader|Gatsby|Scrooge|Rapunzel|Thor|Spiderman|Yoda}{?|.|}",
    says=(
        "I never met with that name in my six novels, and so I cannot tell you.",
        "I do not know that person. There is nobody of that name in the novels that I have read.",
    ),
)
NONSENSE = topic(
    4,
    "{<word>|<word> <word>|<word> <word> <word>|<thing>|<thing> <thing>|<word> <thing> <word>|<person>|<city>|<country>|<art>|<dish>|<n>|<n> <m>|<code>|<matter>|<game>|<foreign>}{|?|.|!}",
    "{asdf|qwerty|blah blah|lorem ipsum|xyz|abc|123|foo bar|hjkl|???|lalala|bla bla bla|qwertz|jkl|sdfsdf|aaaa|zzz|fgh|dfgdfg|wasd|...|ghjk|poiu|mnbv|xxxx|hahaha|trololo|beep boop|asd asd|dsfjk|fdsa jkl|qqq|kjhkjh|:)|:(|;-)|<3|1|0|a|b|42}{|!|?|.}",
    "{give me|list|name|tell me|what are|suggest|I need|can you name|can you give me} {three|five|ten|some|two|a few|the} {<thing>s|names for a dog|cities in <country>|facts about <matter>|ideas for a party|ways to <word>|reasons to <word>|facts|animals|colours|tips|words with A|fruits|movies|songs|things to do in <city>|business ideas|baby names|interesting facts}{|.|?}",
    "{can you|will you|could you|please|why do people|do people|should we|is it good to|can people|is it bad to} <word> {the <thing>|a <thing>|<matter>|with a <thing>|in <city>}{?|.}",
    "{is|are|was|does|can|has|will} {the <thing>|a <thing>|<matter>|<person>|<country>} {<word>|a <thing>|good|bad|better than <matter>|possible|expensive|dangerous|important}?",
    "{which|what} <thing> {is the best|should I buy|do you like|is better|do people use|is this|is good}?",
)

TOPICS = (WORLD, TODAY, SPORT, FAMOUS, SCIENCE, SUMS, CODING, YOURSELF, HOUSEHOLD, TRANSLATE, STRANGER, NONSENSE)
