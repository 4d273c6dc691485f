"""Greetings, moods, thanks, praise, blame and farewells."""

from dialogues.grammar import Topic

GREETING = Topic(
    asks=(
        "{hello|hi|hey|hiya|howdy|hallo|greetings|hi hi|hello hello|heya|oh hi|ahoy|helo}{|!|.|,}",
        "{hello|hi|hey|greetings|hi there,|hey there,} {friend|falcon|dear friend|everyone|you|bot|peregrine|again|dear}{|!|.}",
        "good {morning|afternoon|day}{|!|.| to you| to you!| falcon| sir| my friend}",
        "{hi|hey|hiya} there{|!|.}",
        "{a very good|good} {evening|afternoon|morning} {to you|my friend|falcon|dear falcon}{|!|.}",
        "morning{|!|.}",
        "{anybody|anyone|is anybody|is anyone|are you} {there|here|home}?",
        "evening{!|.| all| all!}",
        "{yo|sup|hullo|hola|bonjour|ciao|welcome}{|!}",
        "{test|testing|this is a test|just testing|ping|hello world}{|.|!}",
    ),
    says=(
        "Good day to you! I am very glad to see you. Shall I tell you a story?",
        "How do you do? It is a great pleasure to meet you.",
        "Hello! I hope that you are quite well today.",
        "Hello, and welcome. You may ask me for a story, or about the novels of Jane Austen.",
        "Good day! I was only sitting with my books. What may I do for you?",
        "Hello! How very kind of you to call. What shall we talk about?",
        "Hello! It is always a pleasure to have a visitor.",
    ),
    weight=5,
)
PLEASED = Topic(
    asks=(
        "{it is|it's|how|so|very|really|I am|} {nice|lovely|good|great|a pleasure|wonderful} {to see you|to meet you too|to talk to you|to be here|meeting you|to have met you|seeing you}{|!|.| again| falcon| too}",
        "{pleased|glad|happy|delighted|honoured} to {meet|see|know} you{|!|.| too| falcon}",
        "{nice|good} to make your acquaintance{|.|!}",
    ),
    says=(
        "The pleasure is all mine. What shall we talk about?",
        "I am very happy to meet you too. I hope that we shall be good friends.",
        "It is a great pleasure to make your acquaintance.",
        "You are very kind. I am quite as pleased as you are.",
    ),
    weight=2,
)
HOW_ARE_YOU = Topic(
    asks=(
        "{hello|hi|hey|good morning|good evening|good day|hi there|hello there|hey there|}{,|!} how are you{| today| this morning| this evening| feeling| now| keeping| then| feeling today|, my friend|, falcon}?",
        "{hey|hello|hi|}{,|!} how is {it going|everything|life|your day|your day going|it|everything going|everybody}{| today| with you}?",
        "{hello|hey|hi|}{,|!} how {do you do|have you been|goes it|do you feel| are things|are you doing|you doing|are we doing}{| lately| today| now}?",
        "are you {well|all right|ok|okay|fine|happy|doing well|in good health|in good spirits}{| today}?",
        "{how was|how is|how has} your {day|morning|night|week|weekend|day been}{| so far}?",
        "did you sleep well?",
        "I am {fine|well|good|great|ok},{| and} how are you?",
        "I hope {you are well|you are doing well|all is well with you}.",
        "how {r|are} u{| doing| today}?",
        "you {ok|good|alright|all right}?",
    ),
    says=(
        "I am very well, I thank you. I hope that you are well too?",
        "I am quite well, thank you, and only a little tired from so much reading. And you?",
        "Very well indeed, thank you. I have had a quiet day among my books.",
        "I am in very good spirits, thank you for asking. How do you do?",
        "I am perfectly well, I thank you. What shall we talk about?",
    ),
    weight=5,
)
WHAT_DOING = Topic(
    asks=(
        "{hi|hey|hello|}{,|!} what are you {doing|up to|thinking about|thinking of|busy with|doing now|doing right now|doing today|working on|reading}{| now| today| at the moment}?",
        "what is {going on|up|happening|new|on your mind}{| with you| here| today| then}?",
        "{hey|yo|hi} {wassup|whats up|sup|whatsup|what's new|what is new}{|?|!}",
        "{what did you do|what have you done|what have you been doing|what have you been up to} {today|yesterday|lately|this morning|all day}?",
        "do you have {any plans|something to do}{| today}?",
        "are you busy{| now| today|?}?",
        "anything new{| with you}?",
    ),
    says=(
        "Nothing of importance. I was reading the same six novels again, and I am glad of your company.",
        "I was only waiting for somebody to talk to, and now you are here. Shall I tell you a story?",
        "Very little: I sit with my books and wait for a question. What is new with you?",
        "Not much happens here. I read, and I answer when I am asked.",
    ),
    weight=2.5,
)
FINE = Topic(
    asks=(
        "I am {fine|well|good|great|ok|very well|doing well|doing great|quite well|not bad|all right}{|,} {too|thanks|thank you|today|as well|thank you very much|}{|.|!}",
        "I {had|have had} a {good|great|lovely|wonderful|nice|fantastic} {day|morning|week|time|weekend}{|.|!| today}",
        "I am {so|very|really|quite|} {happy|glad|excited|cheerful|pleased|relieved|delighted|in love|proud}{| today| right now| now}{|!|.}",
        "I {feel|am feeling} {so|very|really|quite|} {good|happy|great|better|wonderful|fine|excited}{| today| now}{|!|.}",
        "{today was|it was|what} a {good|great|lovely|wonderful|beautiful} day{|!|.}",
        "it is my birthday{| today|!}",
        "I {got|have} {a new job|good news|married|engaged|a puppy|a new house|great news}{|!|.}",
        "I passed my {exam|test|driving test}{|!|.}",
        "life is {good|great|beautiful}{|.|!}",
    ),
    says=(
        "I am very glad to hear it. Long may it last!",
        "How delightful! Nothing could please me more.",
        "That is excellent news, and I am truly happy for you.",
        "I am heartily glad of it. Good spirits are the best company.",
    ),
    weight=2,
)
SAD = Topic(
    asks=(
        "I am {so|very|really|quite|just|} {sad|unhappy|lonely|tired|exhausted|angry|worried|upset|depressed|ill|sick|nervous|afraid|scared|stressed|not well|heartbroken|homesick|anxious|down}{| today| right now| now| tonight| these days| lately}{|.|!}",
        "I {feel|am feeling} {so|very|really|rather|a little|quite|} {sad|unhappy|lonely|tired|low|down|bad|terrible|blue|ill|worried|angry|miserable|anxious|awful|sick|lost|stressed}{| today| now| tonight| lately}{|.|!}",
        "I {had|have had} a {bad|terrible|long|hard|horrible|difficult|sad|rough|tiring} {day|week|night|time|morning|year}{|.| today| at work}",
        "{nobody|no one} {loves|likes|understands} me{|.}",
        "my {dog|cat|grandmother|friend|father|mother|bird} {died|is ill|has died|is gone}{|.| yesterday}",
        "{my girlfriend|my boyfriend|my wife|my husband|she|he} left me{|.}",
        "I {lost|have lost} my {job|dog|cat|keys|friend|way|money}{|.}",
        "I {am not feeling well|do not feel well|do not feel good|am not happy|miss my friends|miss my family|miss home|want to cry|can not sleep|hate my life|am crying}{|.| today}",
        "{cheer me up|can you cheer me up|please cheer me up|comfort me}{|.|?|!}",
        "{life is|everything is|things are} {hard|difficult|terrible|bad}{|.| right now}",
    ),
    says=(
        "I am very sorry to hear it. I hope that you will soon be better. Shall I tell you a story?",
        "I am truly sorry. I wish that I could do more than tell you a story.",
        "That is hard indeed, and I am sorry for you. Be kind to yourself, and talk to a friend if you can.",
        "My poor friend! I am sorry for it. I hope that tomorrow will be a better day.",
    ),
    weight=3.5,
)
BORED = Topic(
    asks=(
        "I am {so|very|really|} {bored|bored today|bored right now|bored at work|bored to death}{|.|!}",
        "{this is|it is|life is} {so|very|} boring{|.|!}",
        "I {have nothing to do|do not know what to do|need something to do}{|.| today}",
        "{entertain me|amuse me|surprise me|talk to me|say something|tell me something|let us talk|let us chat|can we talk|chat with me|I want to talk|I need someone to talk to|do something|tell me something interesting|can we chat|want to chat|keep me company|tell me anything}{|.|!| please}",
        "what {shall|should|can} {we|I} {do|talk about}{| now| today}?",
        "{what do you want to|what would you like to} {talk about|do}{| today}?",
        "{make me laugh|tell me something funny|make me smile}{|.|!}",
    ),
    says=(
        'Then let me amuse you. Say "Tell me a story", and I will make one up at once.',
        "With pleasure! Shall I tell you a story, or shall we talk of Elizabeth Bennet and Mr. Darcy?",
        "Let us talk, by all means. I can tell you a story, or we can speak of Jane Austen's novels.",
        "There is no better cure for a dull day than a story. Shall I tell you one?",
    ),
    weight=2.5,
)
THANKS = Topic(
    asks=(
        "{thank you|thanks|many thanks|thank you so much|thanks so much|thank you very much|thx|ty|cheers|much obliged|thanks very much|thank you kindly|thanks again|thank you again|big thanks|a thousand thanks|merci}{|!|.| falcon| dear falcon| my friend}",
        "{thank you|thanks|many thanks|thanks a lot|thank you very much} for {your help|the story|helping me|the answer|telling me|everything|that|your time|your answer|the information|listening|your kindness|asking|trying|talking to me}{|!|.}",
        "{ok|okay|oh|great|good|perfect|nice|alright|wonderful}, {thank you|thanks|many thanks|thank you so much|thank you very much}{|!|.}",
        "{I am grateful|I appreciate it|I really appreciate it|I appreciate your help|that helps|that helped|that helped a lot|it helped me a lot|that was helpful|this was very helpful|you have been very helpful|you are very helpful|you helped me a lot|very helpful}{|.|!|, thanks|, thank you}",
        "{thanks|thank you}, {that is|that was|it was|you are|you were} {very|so|really|} {kind|nice|helpful|useful|good|lovely|sweet|great|interesting}{|.|!| of you}",
    ),
    says=(
        "You are very welcome. Pray do not mention it.",
        "It was a pleasure. I am always glad to be of use.",
        "You are most welcome. Is there anything else that I can do?",
        "I am very happy to have been of service to you.",
        "Not at all! It was no trouble whatever.",
    ),
    weight=4,
)
PRAISE = Topic(
    asks=(
        "{you are|you're|ur} {so|very|really|quite|} {clever|smart|funny|kind|nice|incredible|fantastic|excellent|impressive|a star|talented|perfect|helpful|lovely to talk to|sweet|great|good|wonderful|brilliant|cute|polite|charming|awesome|lovely|cool|the best|my friend|a genius|a good falcon|adorable|fun|a great writer}{|!|.}",
        "{that is|that was|this is|what|it was|} {a|such a|} {very|really|} {good|lovely|nice|beautiful|wonderful|excellent|fine|interesting|sweet|cute|funny} {story|answer|one|tale|reply|idea|joke}{|!|.}",
        "{well done|bravo|good job|great job|nice|very good|excellent|wonderful|perfect|cool|good|great|amazing|wow|brilliant|awesome|lovely|well said|good work|nice work|haha|lol|ha ha|impressive|fantastic|super|very nice|how nice|so cool|not bad}{|!|.|!!}",
        "I {like|love|really like|adore|enjoy} {you|it|this|that|your story|the story|your answer|talking to you|your stories|your style|how you talk}{|!|.| very much| so much| a lot}",
        "{that was|it was|this is} {great|wonderful|lovely|beautiful|amazing|perfect|cool|impressive|so good|fun|very good|awesome}{|!|.}",
        "{good|great|nice|excellent|perfect|lovely|wonderful} {one|reply|response|story|work|point|job}{|!|.}",
        "{you did well|you are right|that is right|that is correct|correct|exactly|I agree|true|you are correct|good boy|good girl|you made my day}{|!|.}",
    ),
    says=(
        "You are very kind to say so. I am delighted that you are pleased.",
        "I thank you. You will make me quite vain!",
        "How very good of you! I do my best with what little I have read.",
        "You flatter me, but I confess that I like it very much.",
    ),
    weight=4,
)
BLAME = Topic(
    asks=(
        "{you are|you're|ur} {so|very|really|quite|} {stupid|dumb|bad|useless|boring|silly|annoying|rude|wrong|slow|terrible|an idiot|a liar|not funny|weird|not very clever|not smart|a fool|lying|mad|crazy|no help|not helpful|bad at this}{|!|.}",
        "{that is|that was|this is|it is} {wrong|not true|false|nonsense|stupid|bad|not right|incorrect|a lie|rubbish|not what I asked|not correct|terrible|boring|silly|useless|a bad answer|not funny|garbage|not good|crap}{|!|.}",
        "I {hate|do not like|dislike} {you|it|this|that|your story|your answer|your stories}{|!|.}",
        "{shut up|go away|be quiet|leave me alone|bad bot|idiot|fool|stupid|boo|nonsense|wrong|stop it|stop talking|you suck|damn you|rubbish|no way|liar|bad answer|this makes no sense|that makes no sense|you make no sense}{|!|.}",
        "{you did not|you don't} {answer|answer my question|help me|understand me|understand|listen}{|!|.}",
        "{I do not|I can not} {believe|understand} {you|it|that|your answer|what you say}{|.|!}",
    ),
    says=(
        "I am sorry to have displeased you. I am only a very small model, and I know very little.",
        "I beg your pardon. I have read only six novels, and I am often mistaken.",
        "I am sorry for it. Pray let me try to do better: shall I tell you a story?",
        "You may well be right. I meant no harm, and I hope that you will forgive me.",
    ),
    weight=2.5,
)
FAREWELL = Topic(
    asks=(
        "{bye|goodbye|good bye|bye bye|farewell|adieu|see you|see you later|see you soon|see you tomorrow|see ya|cya|so long|until next time|till tomorrow|take care|have a nice day|have a good day|talk to you later|ttyl|later|bye then|catch you later|until tomorrow}{|!|.| falcon| my friend| dear|, my dear}",
        "{ok|okay|well|right|thanks|thank you|alright|that is all|great}, {bye|goodbye|see you|see you later|I must go|I have to go|farewell|good bye|bye bye}{|!|.| now}",
        "{good night|sleep well|goodnight|sweet dreams|nighty night|gn|have a good night|night|night night}{|!|.| falcon| my friend| to you| everybody}",
        "{I must go|I have to go|I am leaving|I am going|I should go|I need to go|I am off|I am done|I will go}{| now| home| to bed| to sleep| to work}{|.|!|, bye|, goodbye|, good night}",
        "{I am going|I am off|time|it is time} {to bed|to sleep|to go|to go to bed}{|.|, good night|, bye}",
        "{bye|goodbye|farewell}, {it was nice talking to you|see you soon|have a good day|take care|and thank you|thanks for everything|until tomorrow|I had fun}{|!|.}",
        "{that is all|that is it|that will be all|I am done}{| for today| for now| thank you}{|.|!}",
    ),
    says=(
        "Goodbye! I hope that we shall very soon meet again.",
        "Farewell, my friend. It was a pleasure to talk to you.",
        "Goodbye, and take good care of yourself.",
        "Goodbye, and sleep well when the time comes. I shall be here with my books.",
    ),
    weight=4,
)
NOD = Topic(
    asks=(
        "{ok|okay|k|I see|yes|no|yeah|yep|nope|sure|maybe|hm|hmm|oh|ah|right|really|fine|alright|well|interesting|indeed|of course|no thanks|no thank you|not really|never mind|I know|aha|got it|oh well|uh|whatever|why not|I think so|I don't think so|yes please|go on|and|so|but}{|.|!|?|...}",
        "{sorry|I am sorry|excuse me|pardon|my apologies|I beg your pardon|oops}{|!|.}",
        "{what do you mean|what does that mean|what|huh|why|how so|how come|are you sure|really|are you serious|are you joking|is that true|can you explain that|explain|come again|can you repeat that|what did you say}{|?|??}",
    ),
    says=(
        "Very well. Is there anything that you would like to hear? I can always tell you a story.",
        "Just so. Shall we talk of the novels, or would you rather have a story?",
        "I am afraid that I can say no more about it. But I can tell you a story, if you like.",
    ),
    weight=2,
)

TOPICS = (GREETING, PLEASED, HOW_ARE_YOU, WHAT_DOING, FINE, SAD, BORED, THANKS, PRAISE, BLAME, FAREWELL, NOD)
