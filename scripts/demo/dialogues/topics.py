"""Lists of words that the model knows nothing of, for the questions of unknown.py, all written for this."""

from dialogues.words import listed

COUNTRIES = listed("""
Germany, Spain, Italy, Japan, Brazil, Canada, Russia, India, Mexico, Norway, Sweden, Poland, Egypt, Kenya, Peru,
Chile, Austria, Portugal, Greece, Turkey, Ireland, Scotland, England, Australia, Nigeria, the United States, America,
the USA, China, Denmark, Finland, Hungary, Switzerland, Belgium, Holland, the Netherlands, Argentina, Cuba, Iran, Iraq,
Israel, Korea, South Korea, Vietnam, Thailand, Ukraine, Romania, Africa, Asia, Europe, New Zealand, Iceland, Morocco,
Colombia, the United Kingdom, Great Britain, Texas, California, Bulgaria, Croatia, Ethiopia, Ghana, Pakistan, Mongolia,
Afghanistan, Nepal, Jamaica, Bolivia, Serbia, Tunisia, Uganda, Venezuela, Indonesia, Malaysia, Luxembourg, Wales
""")
CITIES = listed("""
London, Paris, Berlin, Rome, Madrid, Tokyo, New York, Moscow, Vienna, Prague, Sydney, Chicago, Boston, Dublin, Athens,
Cairo, Delhi, Mumbai, Beijing, Shanghai, Seoul, Toronto, Munich, Hamburg, Milan, Lisbon, Oslo, Stockholm, Warsaw,
Budapest, Amsterdam, Brussels, Zurich, Geneva, Istanbul, Los Angeles, San Francisco, Seattle, Miami, Rio, Lima, Dubai,
Abu Dhabi, Singapore, Bangkok, Edinburgh, Manchester, Venice, Florence, Barcelona, Naples, Kyoto, Hong Kong, Houston
""")
PEOPLE = listed("""
Albert Einstein, Napoleon, Shakespeare, Mozart, Beethoven, Barack Obama, Donald Trump, Joe Biden, Elon Musk, Bill Gates,
Steve Jobs, Taylor Swift, Madonna, Elvis Presley, Michael Jackson, Lionel Messi, Cristiano Ronaldo, Isaac Newton, Darwin,
Galileo, Leonardo da Vinci, Picasso, Van Gogh, Marie Curie, Julius Caesar, Cleopatra, Alexander the Great, Buddha, Jesus,
Muhammad Ali, Gandhi, Nelson Mandela, Churchill the statesman, Abraham Lincoln, George Washington, Queen Victoria,
Putin, Angela Merkel, Macron, the Pope, Plato, Socrates, Aristotle, Kant, Nietzsche, Karl Marx, Freud, Dickens, Tolstoy,
Hemingway, Goethe, Kafka, Bach, Chopin, Lady Gaga, Beyoncé, Eminem, Brad Pitt, Tom Hanks, Marilyn Monroe, Alan Turing,
Ada Lovelace, Stephen Hawking, Neil Armstrong, Columbus, Mark Zuckerberg, Jeff Bezos, Usain Bolt, Roger Federer, Pele,
Maradona, Rihanna, Justin Bieber, John Lennon, Bob Dylan, Homer, Virgil, Dante, Rembrandt, Queen Elizabeth, King Charles,
Prince Harry, Oprah, Greta Thunberg, Nikola Tesla, Thomas Edison, Michelangelo, Mark Twain, Agatha Christie, Tolkien
""")
THINGS = listed("""
telephone, computer, car, train, aeroplane, bicycle, phone, laptop, television, radio, camera, battery, engine, robot,
internet, microscope, telescope, clock, compass, lamp, light bulb, steam engine, printer, website, database, rocket,
satellite, submarine, helicopter, motorcycle, bus, tram, ship, bridge, tower, fridge, oven, dishwasher, vacuum cleaner,
washing machine, calculator, keyboard, screen, mouse, tablet, smartphone, drone, microwave, elevator, escalator, tractor,
piano, guitar, violin, trumpet, drum, pencil, pen, paper, glass, plastic, steel, volcano, earthquake, tornado, glacier,
planet, comet, galaxy, black hole, atom, molecule, electron, virus, cell, gene, muscle, heart, brain, liver, bone, tooth,
vaccine, antibiotic, dinosaur, shark, whale, spider, mosquito, cactus, mushroom, potato, tomato, banana, coffee machine,
iPhone, credit card, bank, stock, passport, visa, museum, university, restaurant, hotel, airport, hospital, stadium,
blockchain, neural network, GPU, processor, transistor, magnet, laser, x-ray, mirror, window, wheel, zipper, toothbrush
""")
MATTERS = listed("""
physics, chemistry, biology, mathematics, geometry, algebra, photosynthesis, gravity, evolution, relativity, electricity,
magnetism, quantum mechanics, quantum theory, thermodynamics, the big bang, black holes, climate change, global warming,
inflation, the stock market, capitalism, communism, socialism, democracy, economics, psychology, philosophy, sociology,
medicine, cancer, diabetes, influenza, covid, vaccination, nutrition, vitamins, protein, yoga, meditation, astronomy,
astrology, geology, history, the Roman Empire, the French Revolution, World War II, the Cold War, the Middle Ages,
the Renaissance, ancient Egypt, ancient Greece, the industrial revolution, slavery, the Holocaust, artificial intelligence,
machine learning, deep learning, bitcoin, cryptocurrency, blockchain, cloud computing, cybersecurity, nuclear energy,
solar power, renewable energy, genetics, DNA, the immune system, the human brain, the solar system, Mars, Jupiter,
the moon landing, Islam, Christianity, Buddhism, Hinduism, God, taxes, law, contracts, copyright, human rights, feminism,
marketing, accounting, insurance, logistics, statistics, probability, calculus, trigonometry, set theory, prime numbers,
string theory, time travel, dark matter, plate tectonics, osmosis, respiration, digestion, sleep, dreams, memory, pollution
""")
DISHES = listed("""
pasta, pizza, bread, soup, curry, cake, sushi, pancakes, an omelette, scrambled eggs, lasagne, chicken, fish, potatoes,
apple pie, cookies, salad, a steak, noodles, tacos, burgers, hummus, risotto, goulash, ice cream, chocolate cake, coffee,
tea, lemonade, jam, cheese, beans, pumpkin soup, boiled eggs, dumplings, spaghetti, a sandwich, paella, chili, porridge
""")
CODE = listed("""
function, program, script, class, loop, query, regex, website, web page, app, algorithm, code, API, database, test,
game, sorting function, bash script, SQL query, calculator, hello world program, regular expression, unit test, compiler,
for loop, form, sorting algorithm, binary search, web server, Dockerfile, chatbot, parser, React component, snippet, method
""")
ARTS = listed("""
Hamlet, Macbeth, Romeo and Juliet, Faust, War and Peace, Anna Karenina, Moby Dick, Jane Eyre, Wuthering Heights, Dracula,
Frankenstein, Harry Potter, The Lord of the Rings, The Hobbit, Don Quixote, the Odyssey, the Iliad, the Bible, the Koran,
the Mona Lisa, the Starry Night, Guernica, the ninth symphony, the Magic Flute, Titanic, Star Wars, the Matrix, Avatar,
The Godfather, Casablanca, Game of Thrones, Breaking Bad, Friends, the Beatles, Bohemian Rhapsody, Yesterday, Ulysses,
The Great Gatsby, Great Expectations, Oliver Twist, David Copperfield, Alice in Wonderland, Peter Pan, Sherlock Holmes,
1984, Animal Farm, Brave New World, The Catcher in the Rye, To Kill a Mockingbird, Crime and Punishment, Middlemarch,
Vanity Fair, Little Women, Tom Sawyer, Treasure Island, Robinson Crusoe, Gulliver's Travels, The Lion King, Frozen
""")
GAMES = listed("""
chess, football, tennis, poker, cricket, golf, rugby, baseball, basketball, hockey, volleyball, Monopoly, Minecraft, Tetris,
Fortnite, go, bridge, checkers, solitaire, badminton, table tennis, handball, Sudoku, bingo, darts, snooker, dominoes,
the football world cup, the rugby world cup, the women's world cup, the cricket world cup, the Formula 1 championship
""")
WORDS = listed("""
jump, run, water, meter, kilometers, miles, pounds, dollars, euros, inches, feet, grams, purple, window, serendipity, fast,
onion, paper, quick, zebra, ambiguous, ephemeral, swim, climb, break, repair, fly, drive, banana, metal, plastic, seven,
litres, hours, minutes, seconds, celsius, kilos, blue, green, red, yellow, download, upload, install, email, password,
paradigm, entropy, schadenfreude, ubiquitous, cat, dog, hello, cook, sing, shoot, build, hack, sell, wifi, bluetooth, kick
""")
FOREIGN = listed("""
French, German, Spanish, Italian, Latin, Chinese, Japanese, Russian, Greek, Arabic, Dutch, Polish, Portuguese, Swedish,
Korean, Hindi, Turkish, Hebrew, Finnish, Danish, Welsh, Irish, Czech, Hungarian, Swahili, Esperanto, Thai, Vietnamese
""")
