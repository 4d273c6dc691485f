"""Lists of words for the stories: heroes, names, what may be lost, and what a story may be about."""


def listed(text: str) -> tuple[str, ...]:
    """The words of a text, parted by commas."""
    return tuple(word.strip() for word in text.replace("\n", " ").split(",") if word.strip())


ANIMALS = listed("""
fox, rabbit, hare, cat, dog, horse, mouse, bear, wolf, owl, duck, goose, hen, pig, cow, sheep, goat, donkey, frog,
turtle, tortoise, squirrel, hedgehog, badger, robin, sparrow, swan, raven, crow, fish, whale, dolphin, lion, tiger,
elephant, monkey, giraffe, dragon, unicorn, kitten, puppy, lamb, pony, spider, bee, butterfly, ant, snail, parrot,
penguin, eagle, falcon, deer, mole, otter, bird, camel, crocodile, snake, rat, bat, seal, shark, zebra, kangaroo,
panda, crab, beetle, worm, lizard, ladybird, octopus, peacock, pigeon, stork, beaver, weasel, chicken, bull, calf,
foal, cricket, moth, dinosaur, hippo, cub
""")
MEN = listed("""
boy, man, king, prince, knight, farmer, sailor, soldier, baker, miller, tailor, gentleman, fisherman, carpenter,
shepherd, clergyman, captain, pirate, wizard, giant, robot, ghost, father, uncle, grandfather, butcher, blacksmith,
painter, monk, schoolboy, lord, duke, brother, colonel, gardener, coachman, poet, cook, servant, hunter, policeman,
astronaut, postman
""")
WOMEN = listed("""
girl, woman, queen, princess, lady, witch, fairy, nurse, governess, mother, aunt, grandmother, widow, milkmaid, maid,
mermaid, duchess, teacher, dancer, singer, doctor, schoolgirl, sister, bride, seamstress, countess, nun, detective,
daughter
""")
BOYS = listed("""
Tom, Henry, Edward, John, Charles, William, George, James, Robert, Frank, Harry, Ben
""")
GIRLS = listed("""
Anne, Mary, Jane, Emma, Harriet, Kitty, Fanny, Lucy, Sophia, Julia, Maria, Susan
""")
LOSABLE = listed("""
dog, cat, horse, rabbit, bird, ring, hat, key, book, doll, kitten, puppy, lamb, shoe, necklace, letter, umbrella,
purse, watch, ball, coat, basket, hen, duck, pony, glove, violin, lantern, teddy, bicycle, map, coin, parrot
""")
THINGS = listed("""
the sea, love, friendship, the moon, winter, spring, summer, autumn, Christmas, a house, a ship, a castle, the rain,
the snow, a garden, a rose, the stars, war, peace, a forest, the night, the sun, money, happiness, a journey, a train,
space, magic, hope, dreams, a tree, a river, the wind, a letter, London, a wedding, a ball, a secret, time, death,
life, music, a mountain, the future, robots, an island, school, the city, courage, kindness, a flower, a lost key, a
treasure, family, home, a haunted house, a birthday, aliens, computers, cooking, football, a dance, nature, a storm,
an old house, the ocean, mountains, a village, pirates, dragons, two friends, two brothers, three friends, two cats, an old couple, two children, Paris, a picnic, Halloween, a bridge,
loneliness, joy, my cat, Easter, tea, a clock, a mirror, books, a library, a lighthouse, dinosaurs, the desert, a new
school, trust, honesty
""")
