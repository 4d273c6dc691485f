"""Facts of the six novels: plots, heroines, couples, homes."""

BOOKS = {
    "Pride and Prejudice": "{Pride and Prejudice|Pride and Prejudice|Pride & Prejudice|P&P}",
    "Emma": "{Emma|Emma|the novel Emma}",
    "Sense and Sensibility": "{Sense and Sensibility|Sense & Sensibility|Sense and Sensibility}",
    "Mansfield Park": "Mansfield Park",
    "Persuasion": "{Persuasion|Persuasion|the novel Persuasion}",
    "Northanger Abbey": "Northanger Abbey",
}
PLOTS = {
    "Pride and Prejudice": "Pride and Prejudice is about Elizabeth Bennet and Mr. Darcy. She thinks him proud, he thinks her beneath him, and in the end they marry.",
    "Emma": "Emma is about Emma Woodhouse, a rich young lady who makes matches for all her friends, and is mistaken in every one of them.",
    "Sense and Sensibility": "Sense and Sensibility is about two sisters: Elinor Dashwood, who hides her feelings, and Marianne, who shows them all.",
    "Mansfield Park": "Mansfield Park is about Fanny Price, a poor girl who grows up in her uncle's great house, and loves her cousin Edmund.",
    "Persuasion": "Persuasion is about Anne Elliot, who was persuaded to give up Captain Wentworth. Eight years later he comes back.",
    "Northanger Abbey": "Northanger Abbey is about Catherine Morland, who has read so many tales of terror that she looks for a crime in every old house.",
}
# Heroine, hero, villain, where it plays, year, how it begins.
FACTS = {
    "Pride and Prejudice": (
        "Elizabeth Bennet",
        "Mr. Darcy",
        "Mr. Wickham",
        "at Longbourn, at Rosings and at Pemberley",
        "1813",
        "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.",
    ),
    "Emma": (
        "Emma Woodhouse",
        "Mr. Knightley",
        "nobody worse than Mrs. Elton",
        "in the village of Highbury, in Surrey",
        "1815",
        "Emma Woodhouse, handsome, clever, and rich, with a comfortable home and happy disposition, seemed to unite some of the best blessings of existence.",
    ),
    "Sense and Sensibility": (
        "Elinor Dashwood, with her sister Marianne",
        "Edward Ferrars, with Colonel Brandon",
        "Willoughby",
        "in Devonshire, at Barton, and in London",
        "1811",
        "The family of Dashwood had long been settled in Sussex.",
    ),
    "Mansfield Park": (
        "Fanny Price",
        "Edmund Bertram",
        "Henry Crawford, and Mrs. Norris is no better",
        "at Mansfield Park, in Northamptonshire, and at Portsmouth",
        "1814",
        "About thirty years ago, Miss Maria Ward, of Huntingdon, with only seven thousand pounds, had the good luck to captivate Sir Thomas Bertram, of Mansfield Park.",
    ),
    "Persuasion": (
        "Anne Elliot",
        "Captain Wentworth",
        "Mr. Elliot",
        "at Kellynch, at Uppercross, at Lyme and in Bath",
        "1817",
        "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own amusement, never took up any book but the Baronetage.",
    ),
    "Northanger Abbey": (
        "Catherine Morland",
        "Henry Tilney",
        "General Tilney",
        "in Bath, and at Northanger Abbey",
        "1817",
        "No one who had ever seen Catherine Morland in her infancy would have supposed her born to be an heroine.",
    ),
}
COUPLES = (
    (
        "{Elizabeth|Elizabeth Bennet|Lizzy|Lizzy Bennet|Miss Elizabeth Bennet}",
        "Elizabeth Bennet",
        "{Darcy|Mr. Darcy|Mr Darcy}",
        "Mr. Darcy",
        "Pride and Prejudice",
    ),
    (
        "{Jane|Jane Bennet|Miss Bennet}",
        "Jane Bennet",
        "{Bingley|Mr. Bingley|Mr Bingley|Charles Bingley}",
        "Mr. Bingley",
        "Pride and Prejudice",
    ),
    ("{Lydia|Lydia Bennet}", "Lydia Bennet", "{Wickham|Mr. Wickham|Mr Wickham}", "Mr. Wickham", "Pride and Prejudice"),
    (
        "{Charlotte|Charlotte Lucas}",
        "Charlotte Lucas",
        "{Mr. Collins|Collins|Mr Collins}",
        "Mr. Collins",
        "Pride and Prejudice",
    ),
    (
        "{Emma|Emma|Emma Woodhouse|Miss Woodhouse}",
        "Emma Woodhouse",
        "{Mr. Knightley|Knightley|Mr Knightley|George Knightley}",
        "Mr. Knightley",
        "Emma",
    ),
    ("{Harriet|Harriet Smith}", "Harriet Smith", "{Robert Martin|Mr. Martin}", "Robert Martin", "Emma"),
    ("{Jane Fairfax|Miss Fairfax}", "Jane Fairfax", "{Frank Churchill|Churchill}", "Frank Churchill", "Emma"),
    (
        "{Elinor|Elinor Dashwood}",
        "Elinor Dashwood",
        "{Edward|Edward Ferrars}",
        "Edward Ferrars",
        "Sense and Sensibility",
    ),
    (
        "{Marianne|Marianne Dashwood}",
        "Marianne Dashwood",
        "{Colonel Brandon|Brandon}",
        "Colonel Brandon",
        "Sense and Sensibility",
    ),
    ("{Lucy Steele|Lucy}", "Lucy Steele", "Robert Ferrars", "Robert Ferrars", "Sense and Sensibility"),
    ("{Fanny|Fanny Price}", "Fanny Price", "{Edmund|Edmund Bertram}", "Edmund Bertram", "Mansfield Park"),
    ("{Maria Bertram|Maria}", "Maria Bertram", "Mr. Rushworth", "Mr. Rushworth", "Mansfield Park"),
    (
        "{Anne|Anne Elliot|Anne Elliott}",
        "Anne Elliot",
        "{Captain Wentworth|Wentworth|Frederick Wentworth}",
        "Captain Wentworth",
        "Persuasion",
    ),
    ("{Louisa|Louisa Musgrove}", "Louisa Musgrove", "Captain Benwick", "Captain Benwick", "Persuasion"),
    (
        "{Catherine|Catherine Morland}",
        "Catherine Morland",
        "{Henry Tilney|Mr. Tilney|Henry}",
        "Henry Tilney",
        "Northanger Abbey",
    ),
)
HOMES = (
    (
        "{the Bennets|the Bennet family|Elizabeth Bennet|Elizabeth|Jane Bennet|Lydia|Mr. Bennet|Mrs. Bennet|the Bennet sisters}",
        "The Bennets live at Longbourn, in Hertfordshire.",
    ),
    ("{Mr. Darcy|Darcy|Mr Darcy|Georgiana Darcy}", "Mr. Darcy lives at Pemberley, in Derbyshire."),
    (
        "{Mr. Bingley|Bingley|the Bingleys|Mr Bingley|Miss Bingley|Charles Bingley}",
        "Mr. Bingley lives at Netherfield, near Longbourn.",
    ),
    ("{Lady Catherine|Lady Catherine de Bourgh}", "Lady Catherine de Bourgh lives at Rosings, in Kent."),
    (
        "{Mr. Collins|Charlotte|Charlotte Lucas}",
        "Mr. and Mrs. Collins live at Hunsford, in Kent, very near to Rosings.",
    ),
    (
        "{Emma|Emma Woodhouse|Mr. Woodhouse|the Woodhouses}",
        "Emma and her father live at Hartfield, in the village of Highbury.",
    ),
    ("{Mr. Knightley|Knightley|Mr Knightley}", "Mr. Knightley lives at Donwell Abbey, about a mile from Highbury."),
    (
        "{Miss Bates|Jane Fairfax|Mr. Elton|the Westons|Harriet Smith}",
        "In the village of Highbury, or very near it, as everybody does in Emma.",
    ),
    (
        "{the Dashwoods|Elinor|Marianne|Elinor and Marianne|the Dashwood sisters|Mrs. Dashwood|Elinor Dashwood|the Dashwood family|Marianne Dashwood|the Dashwood ladies|the Dashwood girls}",
        "The Dashwoods leave Norland, in Sussex, and live at Barton Cottage, in Devonshire.",
    ),
    ("{Colonel Brandon|Brandon}", "Colonel Brandon lives at Delaford, in Dorsetshire."),
    (
        "{Fanny Price|Fanny|the Bertrams|Edmund|Sir Thomas|Lady Bertram|the Bertram family}",
        "The Bertrams live at Mansfield Park, in Northamptonshire, and Fanny Price lives with them.",
    ),
    (
        "{Anne Elliot|the Elliots|Sir Walter|Anne|Sir Walter Elliot|the Elliot family}",
        "The Elliots live at Kellynch Hall, in Somersetshire, until they remove to Bath.",
    ),
    (
        "{Catherine Morland|the Morlands|Catherine}",
        "Catherine Morland lives at Fullerton, and goes to Bath with the Allens.",
    ),
    (
        "{Henry Tilney|the Tilneys|General Tilney}",
        "The Tilneys live at Northanger Abbey, and Henry has a house at Woodston.",
    ),
)
