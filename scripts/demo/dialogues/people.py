"""The people of the six novels: he, she or they, by which names users call them, and who they are.

Each description also answers what sort of person it is.
"""

Person = tuple[str, str, str]
"""The pronoun; the names, parted by commas; the description."""

TABLE = """
she | Elizabeth Bennet, Lizzy, Elizabeth, Eliza Bennet, Lizzy Bennet, Miss Elizabeth Bennet | Elizabeth Bennet is the heroine of Pride and Prejudice: lively, clever, and quick to laugh and to judge. She marries Mr. Darcy.
he | Mr. Darcy, Darcy, Fitzwilliam Darcy, Mister Darcy, Mr Darcy, Mr. Darcy of Pemberley | Mr. Darcy is the hero of Pride and Prejudice, the proud and rich owner of Pemberley. He loves Elizabeth Bennet, and is a better man than he seems.
she | Jane Bennet, Elizabeth's sister, Miss Bennet, Jane Bennett | Jane Bennet is the eldest of the five sisters in Pride and Prejudice, the most beautiful and the gentlest. She marries Mr. Bingley.
she | Lydia Bennet, Lydia, Lydia Bennett | Lydia is the youngest of the five Bennet sisters, wild and thoughtless. She runs away with Mr. Wickham, and marries him.
she | Kitty Bennet, Kitty, Catherine Bennet | Kitty is the fourth of the Bennet sisters, who follows Lydia in every thing.
she | Mary Bennet | Mary is the third of the Bennet sisters. She is plain, and always reading or playing the pianoforte.
he | Mr. Bennet, Mr Bennet, Elizabeth's father, Mr Bennett | Mr. Bennet is the father of the five sisters in Pride and Prejudice. He is witty and idle, and loves his library.
she | Mrs. Bennet, Mrs Bennet, Elizabeth's mother, Mrs Bennett | Mrs. Bennet is the mother of the five sisters in Pride and Prejudice. She is foolish and loud, and thinks only of getting them married.
he | Mr. Bingley, Bingley, Charles Bingley, Mr Bingley | Mr. Bingley is Mr. Darcy's friend in Pride and Prejudice, rich, cheerful and kind. He marries Jane Bennet.
she | Caroline Bingley, Miss Bingley, Bingley's sister | Miss Bingley is Mr. Bingley's sister, proud and jealous. She would like to marry Mr. Darcy, and does not.
he | Mr. Wickham, Wickham, George Wickham, Mr Wickham, the officer Wickham | Mr. Wickham is an officer in Pride and Prejudice, handsome and charming, but a liar. He runs away with Lydia Bennet.
he | Mr. Collins, Collins, Mr Collins, William Collins | Mr. Collins is a clergyman in Pride and Prejudice, pompous and very foolish. Elizabeth refuses him, and he marries Charlotte Lucas.
she | Charlotte Lucas, Charlotte, Mrs. Collins | Charlotte Lucas is Elizabeth Bennet's sensible friend. She marries Mr. Collins, for the sake of a home.
she | Lady Catherine de Bourgh, Lady Catherine, Catherine de Bourgh | Lady Catherine de Bourgh is Mr. Darcy's aunt in Pride and Prejudice, a great lady who tells everybody what to do.
she | Georgiana Darcy, Miss Darcy, Georgiana, Darcy's sister | Georgiana is Mr. Darcy's young sister, very shy, and very fond of music.
he | Colonel Fitzwilliam | Colonel Fitzwilliam is Mr. Darcy's cousin in Pride and Prejudice, a pleasant and gentlemanlike man.
they | Mr. Gardiner, Mrs. Gardiner, the Gardiners | Mr. and Mrs. Gardiner are Elizabeth Bennet's uncle and aunt in London, sensible and kind.
she | Emma Woodhouse, Emma, Miss Woodhouse | Emma Woodhouse is the heroine of Emma: handsome, clever and rich. She makes matches for others, and is always mistaken.
he | Mr. Knightley, Knightley, George Knightley, Mr Knightley | Mr. Knightley is the hero of Emma, a sensible man and an old friend of the family, and the only one who tells Emma her faults. He marries her.
she | Harriet Smith, Harriet | Harriet Smith is Emma's friend, a pretty and simple girl of seventeen. She marries Robert Martin, the farmer.
he | Frank Churchill, Churchill, Mr. Churchill | Frank Churchill is Mr. Weston's son in Emma, a charming young man with a secret: he is engaged to Jane Fairfax.
she | Jane Fairfax, Miss Fairfax | Jane Fairfax is Miss Bates's niece in Emma, elegant, accomplished and poor. She is secretly engaged to Frank Churchill.
she | Miss Bates, Mrs. Bates | Miss Bates is a good and poor old maid in Emma, who never stops talking.
he | Mr. Elton, Elton, Mr Elton, Mrs. Elton | Mr. Elton is the vicar of Highbury in Emma, handsome and vain. Emma means him for Harriet, but he proposes to Emma herself.
he | Mr. Woodhouse, Emma's father, Mr Woodhouse | Mr. Woodhouse is Emma's father, a kind and nervous old man, who is afraid of draughts, of cake, and of every change.
they | Mr. Weston, Mrs. Weston, Miss Taylor | Mr. and Mrs. Weston are Emma's good friends. Mrs. Weston was Miss Taylor, Emma's governess, before she married.
he | Robert Martin, Mr. Martin | Robert Martin is an honest young farmer in Emma, who loves Harriet Smith, and marries her in the end.
she | Elinor Dashwood, Elinor, Miss Dashwood | Elinor Dashwood is a heroine of Sense and Sensibility, the sister with the sense. She marries Edward Ferrars.
she | Marianne Dashwood, Marianne | Marianne Dashwood is Elinor's sister in Sense and Sensibility, warm and romantic. She loves Willoughby, and marries Colonel Brandon.
she | Margaret Dashwood, Mrs. Dashwood | She is one of the Dashwoods in Sense and Sensibility: Mrs. Dashwood is the mother, and Margaret the youngest of the three sisters.
he | Edward Ferrars, Edward, Mr. Ferrars | Edward Ferrars is the shy and honest young man whom Elinor loves in Sense and Sensibility. He marries her when Lucy Steele has left him.
he | Colonel Brandon, Brandon | Colonel Brandon is a grave and good man of five and thirty in Sense and Sensibility. He loves Marianne, and marries her.
he | Willoughby, John Willoughby, Mr. Willoughby | Willoughby is the handsome young man whom Marianne loves in Sense and Sensibility. He is not to be trusted, and marries another for her money.
she | Lucy Steele, Miss Steele, Lucy | Lucy Steele is a sly young woman in Sense and Sensibility. She is secretly engaged to Edward Ferrars, and marries his brother Robert.
they | Mrs. Jennings, Sir John Middleton | Mrs. Jennings and Sir John Middleton are the Dashwoods' merry neighbours, kind, noisy and fond of a joke.
they | John Dashwood, Fanny Dashwood, Mrs. John Dashwood | John Dashwood is the half-brother of Elinor and Marianne, and Fanny is his wife. They are rich, cold and selfish.
she | Fanny Price, Fanny, Miss Price | Fanny Price is the heroine of Mansfield Park, a gentle and timid girl, brought up by her rich uncle. She marries her cousin Edmund.
he | Edmund Bertram, Edmund | Edmund Bertram is the younger son at Mansfield Park, a good and serious man who becomes a clergyman. He marries Fanny Price.
he | Sir Thomas Bertram, Sir Thomas | Sir Thomas Bertram is the master of Mansfield Park and Fanny's uncle, a stern man, but just.
she | Lady Bertram | Lady Bertram is Fanny's aunt in Mansfield Park. She sits on the sofa with her pug, and does nothing at all.
she | Mrs. Norris, aunt Norris, Mrs Norris | Mrs. Norris is Fanny's aunt in Mansfield Park, mean and unkind, and always busy with the affairs of others.
he | Henry Crawford, Mr. Crawford, Crawford | Henry Crawford is a charming young man in Mansfield Park, who proposes to Fanny, and is refused. He runs away with Maria.
she | Mary Crawford, Miss Crawford | Mary Crawford is Henry's sister in Mansfield Park, pretty, lively and worldly. Edmund loves her for a time.
they | Maria Bertram, Julia Bertram, Tom Bertram | Tom, Maria and Julia are the elder cousins of Fanny at Mansfield Park. They are handsome and spoilt.
she | Anne Elliot, Anne, Miss Anne Elliot, Anne Elliott | Anne Elliot is the heroine of Persuasion, gentle and sensible. She gave up Captain Wentworth when she was young, and marries him eight years later.
he | Captain Wentworth, Wentworth, Frederick Wentworth, Captain Frederick Wentworth | Captain Wentworth is the hero of Persuasion, a brave officer of the navy. He has loved nobody but Anne Elliot, and marries her at last.
he | Sir Walter Elliot, Sir Walter, Anne's father | Sir Walter Elliot is Anne's father in Persuasion, a very vain man, who reads no book but the Baronetage.
she | Lady Russell | Lady Russell is Anne Elliot's friend in Persuasion. It was she who persuaded Anne to give up Captain Wentworth.
he | Mr. Elliot, William Elliot, William Walter Elliot | Mr. Elliot is Anne's cousin in Persuasion, who is to have Kellynch one day, very polite, but cold and false.
they | Louisa Musgrove, Henrietta Musgrove, the Musgroves | The Musgroves are the neighbours of Anne's sister Mary in Persuasion. Louisa falls from the wall at Lyme, and marries Captain Benwick.
he | Captain Benwick, Captain Harville, Admiral Croft | He is an officer of the navy in Persuasion, and one of Captain Wentworth's friends and relations.
she | Elizabeth Elliot, Mary Musgrove | She is a sister of Anne Elliot in Persuasion: Elizabeth is the proud one, and Mary the one who is always ill.
she | Catherine Morland, Catherine, Miss Morland | Catherine Morland is the heroine of Northanger Abbey, an honest girl of seventeen, who has read too many novels. She marries Henry Tilney.
he | Henry Tilney, Tilney, Mr. Tilney | Henry Tilney is the hero of Northanger Abbey, a witty young clergyman. He marries Catherine Morland.
he | General Tilney, the General | General Tilney is the master of Northanger Abbey, a proud and greedy man, who turns Catherine out of his house.
she | Eleanor Tilney, Miss Tilney | Eleanor Tilney is Henry's sister in Northanger Abbey, amiable and elegant, and a true friend to Catherine.
she | Isabella Thorpe, Isabella, Miss Thorpe | Isabella Thorpe is Catherine's false friend in Northanger Abbey, pretty, vain and faithless.
he | John Thorpe, Mr. Thorpe, Thorpe | John Thorpe is Isabella's brother in Northanger Abbey, who talks of nothing but horses and himself.
they | James Morland, Mr. Allen, Mrs. Allen | In Northanger Abbey, Mr. and Mrs. Allen take Catherine Morland to Bath, and James Morland is her brother.
"""


def read_table(table: str) -> tuple[Person, ...]:
    """The people of a table, one a line."""
    rows = (line.split(" | ") for line in table.strip().splitlines())
    return tuple((pronoun, names, description) for pronoun, names, description in rows)


PEOPLE = read_table(TABLE)
