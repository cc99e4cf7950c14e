"""The small world of the stories: people, animals, places, weather, things, and what belongs together.

A table is a list of rows, and a row binds the slots of a story: casting a table picks one row. What the
world knows stands in the rows: a rabbit eats carrots and lives in a burrow, a teapot is mended with glue, a
ball on the roof is reached with a ladder. So a story cannot feed bones to a duck. A column marked `*`
also binds its phrase with the article (`thing*` gives `thing` = "old drum" and `a_thing` = "an old drum").
"""

Row = dict[str, str]


def with_article(phrase: str) -> str:
    """`phrase` with "a" or "an" before it. By spelling: the world holds no "hour" and no "unicorn"."""
    return ("an " if phrase[0].lower() in "aeiou" else "a ") + phrase


def table(columns: str, text: str) -> tuple[Row, ...]:
    """The rows of a text table: one row a line (or between semicolons), cells between `|`."""
    names = [name.strip() for name in columns.split("|")]
    rows = []
    for line in text.replace(";", "\n").splitlines():
        if not line.strip():
            continue
        row: Row = {}
        for name, cell in zip(names, (cell.strip() for cell in line.split("|")), strict=True):
            row[name.rstrip("*")] = cell
            if name.endswith("*"):
                row["a_" + name.rstrip("*")] = with_article(cell)
        rows.append(row)
    return tuple(rows)


PRONOUNS = {"boy": ("he", "him", "his"), "girl": ("she", "her", "her")}


def person(name: str, gender: str, prefix: str = "") -> Row:
    """The slots of one character: hero `{n} {he} {He} {him} {his} {His}`, friend `{f} {fhe} {fHe} ...`."""
    he, him, his = PRONOUNS[gender]
    row = {prefix + "he": he, prefix + "him": him, prefix + "his": his}
    row |= {prefix + "He": he.title(), prefix + "His": his.title()}
    row[prefix or "n"] = name
    row[prefix + "child"] = gender
    return row


NAMES = {
    "boy": "Tom Ben Sam Leo Max Finn Jack Theo Hugo Oscar Noah Eli Luke Adam Peter Omar Ravi Kai Milo "
    "Felix Amir Simon Otto Ivan Hans Mateo Jonas Emil Abel Toby",
    "girl": "Lily Mia Anna Sara Ella Nora Zoe Lucy Emma Ida Clara Maya Nina Rosa Tess Molly Ruth Leila "
    "Ines Freya Amina Kate Julia Yuki Priya Elsa Greta Hannah Vera Alma",
}
BEAST_NAMES = {
    "boy": "Pip Bramble Rufus Bruno Nutkin Tuft Oakley Monty Basil Dusty",
    "girl": "Hazel Tansy Poppy Fern Clover Willow Juniper Bonnie Mossy Dot",
}
BEASTS = "fox rabbit bear mouse hedgehog squirrel badger otter frog mole beaver raccoon"


def people(prefix: str, names: dict[str, str]) -> tuple[Row, ...]:
    return tuple(person(name, gender, prefix) for gender in names for name in names[gender].split())


def kin() -> tuple[Row, ...]:
    rows = table(
        "kin | Mom | gender",
        """
        mother | Mom | girl; father | Dad | boy; mother | Mom | girl; father | Dad | boy
        grandmother | Grandma | girl; grandfather | Grandpa | boy; aunt | Auntie | girl
        uncle | Uncle | boy""",
    )
    return tuple({"kin": row["kin"], "Mom": row["Mom"]} | person("", row["gender"], "k") for row in rows)


def coloured(key: str, short: str, things: str, colours: str) -> tuple[Row, ...]:
    """Every thing in every colour: `{thing}` = "red ball", `{a_thing}` = "a red ball", `{toy}` = "ball"."""
    return tuple(
        {key: f"{colour} {thing}", "a_" + key: with_article(f"{colour} {thing}"), short: thing}
        for thing in things.split(", ")
        for colour in colours.split(", ")
    )


COLOURS = "red, blue, green, yellow, orange, purple, white, silver, little, old"

TABLES: dict[str, tuple[Row, ...]] = {
    "hero": people("", NAMES),
    "friend": people("f", NAMES),
    "beast": people("", BEAST_NAMES),
    "other": people("f", BEAST_NAMES),
    "kind": table("child*", BEASTS.replace(" ", ";")),
    "fkind": table("fkind*", BEASTS.replace(" ", ";")),
    "kin": kin(),
    "trait": table(
        "trait*",
        """kind; curious; cheerful; quiet; clever; gentle; busy; funny; lively
        thoughtful; merry
        friendly; dreamy; hopeful; young; small; happy; eager; playful; patient""",
    ),
    "age": table("age*", "four; five; six; seven; eight; nine"),
    "home": table(
        "home",
        """by the sea; near the forest; on a farm; in a small town; in a mountain village
        on a green hill; beside a wide river; at the end of a long road; in a yellow house; above a bakery
        across from the park; next to a windmill; near the harbor; on a busy street""",
    ),
    "wood": table(
        "home",
        """in the old forest; by the blue lake; under a big oak tree; in a sunny meadow
        at the foot of a hill; beside a clear stream; among the tall pines; near the edge of the wood""",
    ),
    "mild": table(
        "one",
        """One sunny morning; One warm afternoon; One bright day; One quiet morning
        One cool afternoon
        On a sunny Saturday; One spring day; One Sunday afternoon; One summer morning; One autumn day
        One fine day
        Early one morning; Late one afternoon; One Monday; One Friday afternoon
        On the first day of spring""",
    ),
    "windy": table("one", "One windy day; One windy morning; One windy afternoon; On a windy Saturday"),
    "storm": table(
        "storm* | noise",
        """thunderstorm | thunder rolled over the roof
        storm | wind howled at the windows
        hailstorm | hail drummed on the roof; rainstorm | rain beat against the glass""",
    ),
    "toy": coloured(
        "thing",
        "toy",
        "ball, doll, teddy bear, boat, train, drum, top, puppet, marble, "
        "toy car, wooden horse, robot, paper bird, music box, whistle, toy truck",
        COLOURS,
    ),
    "hard": coloured("thing", "toy", "drum, boat, train, puppet, toy car, wooden horse, robot", COLOURS),
    "soft": coloured("thing", "toy", "doll, teddy bear, kite, cloth rabbit, puppet, ball, hat", COLOURS),
    "spot": table(
        "spot | rest",
        """under the pear tree | eat a pear; on the stone wall | watch the birds
        by the pond | look at the frogs; on the old bench | tie a shoe; beside the well | drink some water
        in the tall grass | look for crickets; behind the barn | count the clouds
        on the porch steps | eat an apple
        near the garden gate | wave at the mailman; in the hay | take a nap
        under the bridge | listen to the water
        by the rose bush | smell the flowers; at the bus stop | rest; in the treehouse | draw a map""",
    ),
    "stuck": table(
        "thing* | where | tool* | reach",
        """
        kite | in the top of a tree | ladder | climbed up and pulled it free
        ball | on the roof of the shed | ladder | climbed up and rolled it down
        hat | on a high branch | fishing rod | hooked it and brought it down
        scarf | on the tall fence | long stick | lifted it off
        paper plane | on top of the wardrobe | chair | stood on it and reached up
        balloon | under the ceiling of the hall | broom | pulled it down by the string
        boat | in the middle of the pond | net | drew it to the shore
        shoe | in the deep ditch | rake | pulled it out
        ring | down a drain | magnet on a string | drew it up
        coin | under a heavy box | broom | swept it out""",
    ),
    "fragile": table(
        "thing* | room | fix",
        """blue vase | in the hall | glue; teapot | in the kitchen | glue
        clay bowl | in the kitchen | glue; china plate | in the kitchen | glue
        picture frame | in the hall | glue
        glass lamp | in the study | strong tape; flower pot | in the living room | clay
        wooden clock | in the living room | small nails; old mirror | in the bedroom | strong tape""",
    ),
    "snack": table(
        "snack* | few",
        """bag of cherries | cherries; basket of plums | plums
        box of cookies | cookies
        bowl of strawberries | strawberries; bag of nuts | nuts; plate of pancakes | pancakes
        bunch of grapes | grapes
        jar of candy | candy; loaf of warm bread | bread; round cheese | cheese; big apple pie | pie""",
    ),
    "fear": table(
        "fear | scary | truth",
        """
        the dark | a tall shadow on the wall | a coat on a hook
        the attic | a scratching sound above | a squirrel with nuts
        ghosts | a white shape in the yard | a sheet on the line
        monsters | a pair of bright eyes by the door | the old cat
        the cellar | a low groan below | the old water pipe; the forest | a rustle outside | a hungry hedgehog
        owls | a strange cry outside | a baby owl
        dragons | smoke behind the hill | a farmer burning leaves""",
    ),
    "wild": table(
        "animal* | food | den | hurt",
        """
        sparrow | crumbs | nest in the hedge | wing; rabbit | carrots | burrow under the hill | leg
        duckling | oats | nest by the pond | foot; hedgehog | berries | den of leaves | paw
        squirrel | nuts | hole in the oak | tail; fawn | clover | glade in the forest | leg
        mouse | seeds | hole by the wall | paw; robin | worms | nest in the apple tree | wing
        turtle | lettuce | hollow by the stream | foot; fox cub | fish | den behind the rocks | paw""",
    ),
    "pet": table(
        "pet* | sound | treat",
        """dog | barked | bone; cat | meowed | bowl of milk
        puppy | yelped | biscuit
        kitten | mewed | piece of fish; piglet | squealed | ripe pear; lamb | bleated | handful of hay""",
    ),
    "petname": table(
        "pet_name",
        """Biscuit; Shadow; Button; Pepper; Cookie; Rusty; Snowy; Mango; Socks
        Noodle""",
    ),
    "thief": table(
        "thief* | home_of | young",
        """raccoon | under the shed | kits
        mouse | behind the stove | babies
        magpie | in the tall poplar | chicks; squirrel | in the hollow oak | babies
        stray cat | in the barn | kittens; crow | on the chimney | chicks
        fox | behind the hen house | cubs""",
    ),
    "loot": table(
        "loot",
        """cookies; buns; cherries; sausages; pears; walnuts; cheese rolls; muffins; eggs
        blueberries""",
    ),
    "shop": table(
        "want* | shop | price",
        """
        red bicycle | toy shop | twenty; telescope | big shop | thirty; violin | music shop | forty
        rocking horse | toy shop | fifteen; box of paints | art shop | ten; storybook | bookshop | eight
        toy castle | toy shop | twelve; drum | music shop | sixteen; globe | bookshop | eighteen
        chess set | toy shop | nine; sled | sports shop | fourteen; microscope | big shop | twenty-five""",
    ),
    "job": table(
        "job | boss*",
        """washed cars | neighbor; raked leaves | gardener; walked dogs | doctor
        sold lemonade | baker; picked apples | farmer; fed chickens | farmer; swept floors | barber
        carried parcels | shopkeeper; watered roses | teacher; painted fences | carpenter""",
    ),
    "need": table(
        "need* | gift_for",
        """new umbrella | walked home in the rain
        warm coat | shivered in the cold
        pair of glasses | could not read the paper; new teapot | could not make tea
        soft pillow | could not sleep well; pair of gloves | had cold hands""",
    ),
    "cake": table(
        "cake* | miss | lender*",
        """honey cake | honey | beekeeper; apple cake | apples | farmer
        cheese cake | cheese | shepherd; egg custard | eggs | farmer; lemon cake | lemons | shopkeeper
        carrot cake | carrots | gardener; cream tart | cream | milkman; berry pie | berries | hunter
        nut cake | nuts | miller; plum tart | plums | teacher""",
    ),
    "skill": table(
        "skill | fail | tip | done",
        """
        ride a bike | fell into the grass | Look ahead, not down | rode all the way down the street
        swim | swallowed water | Kick with your legs | swam across the pool
        whistle | only blew air | Make your lips round | whistled a whole tune
        skate | landed on the ice | Bend your knees | glided around the pond
        juggle | dropped every ball | Start with two balls | kept three balls in the air
        fly a kite | dropped the kite in the mud | Run into the wind | made the kite dance in the sky
        play the piano | hit the wrong keys | Play it slowly | played the song without a mistake
        climb the rope | slid down again | Use your feet, too | touched the top of the rope
        tie a bow | made a big knot | Make two loops | tied a neat bow
        row a boat | went around in circles | Pull with both arms | rowed straight to the other shore""",
    ),
    "seed": table(
        "plant* | tiny* | color",
        """sunflower | striped seed | yellow; pumpkin | flat seed | orange
        bean plant | brown bean | green; tulip | round bulb | red; rose bush | thin stick | pink
        tomato plant | tiny seed | red; lily | white bulb | white""",
    ),
    "build": table(
        "made* | one | spot | stuff | ruin | ruined",
        """
        sand castle | One summer day | on the beach | wet sand | a big wave came | washed it away
        snowman | One winter morning | in the yard | fresh snow | a large dog jumped on it | broke it
        block tower | One rainy day | on the rug | wooden blocks | the cat jumped | knocked it over
        stone dam | One hot afternoon | in the stream | flat stones | the water rose | broke it
        card house | One Sunday evening | on the table | old cards | a gust of wind came in | blew it down
        leaf fort | One autumn day | in the park | sticks and leaves | a horse ran by | trampled it
        blanket tent | One gray day | in the living room | old blankets | a chair fell over | pulled it down
        paper tower | One snowy day | in the kitchen | paper and glue | water ran from the sink | made it soft
        raft | One sunny day | by the river | logs and rope | a rope came loose | the raft fell apart
        snow fort | On a snowy day | behind the school | big snowballs | the sun came out | melted it""",
    ),
    "place": table(
        "place | mark* | crowd",
        """the market | green clock | people
        the fair | tall wheel | people
        the zoo | stone lion | visitors; the forest | crooked pine | trees
        the museum | golden door | visitors
        the train station | big clock | travelers; the castle | round tower | visitors
        the harbor | white lighthouse | sailors""",
    ),
    "game": table("game", "hide and seek; tag; catch; pirates; checkers; marbles; hopscotch; leapfrog"),
    "race": table(
        "race | how | slow_how | rest",
        """
        run to the big rock | ran like the wind | walked step by step | lay down under a bush for a nap
        swim across the lake | shot through the water | paddled slowly on | stopped to float in the sun
        climb the hill | jumped from stone to stone | climbed slowly on | sat down to eat berries
        roll a log to the river | pushed hard and fast | pushed a little at a time | told jokes""",
    ),
    "big": table(
        "big* | trap",
        """lion | caught in a hunter's net; bear | tied to a tree
        wolf | tangled in a rope
        tiger | caught in the vines; leopard | held fast by a rope; big cat | tangled in a fishing net""",
    ),
    "ill": table(
        "ill | soup* | cheer",
        """had a bad cold | pot of chicken soup | read a funny story
        had a sore throat | jar of honey | made a puppet show
        had a fever | bowl of vegetable soup | sang a silly song
        had hurt a leg | basket of fresh bread | drew a picture of the two of them
        had a toothache | cup of cool pudding | told three silly jokes""",
    ),
    "mud": table(
        "mess | wash",
        """rolled in the mud | warm water and soap
        jumped into the coal | a big sponge
        dug in the flower bed | the garden hose; fell into the green paint | a brush and soap
        crawled through the chimney | two buckets of water; chased frogs in the ditch | a tub of bubbles""",
    ),
    "sleepy": table(
        "worry | calm",
        """the wind was loud | sang a soft song
        the moon was too bright | closed the curtains
        school began the next day | told a story about a brave sailor
        the bed felt cold | brought a wool blanket
        the house made strange sounds | explained each little sound
        a bad dream came back | sat by the bed for a while""",
    ),
    "dream": table(
        "dream",
        """a ship with silver sails; a garden of talking flowers; a gentle whale
        a city in the clouds
        a train to the moon; a friendly dragon; an island of cats; a river of stars""",
    ),
    "errand": table(
        "parcel* | goal | old*",
        """letter | mill | miller; basket of eggs | castle | cook
        clock | tower | keeper
        bottle of medicine | cottage on the hill | shepherd; warm pie | lighthouse | keeper; lamp | inn | cook
        bunch of keys | old school | teacher; sack of flour | bakery | baker; blanket | stable | groom""",
    ),
    "block": table(
        "block* | over | tempt",
        """
        broken bridge | crossed on the stepping stones | children playing ball
        fallen tree | climbed over the trunk | a stand with candy
        flooded path | walked around by the hill | a puppet show
        angry goose | walked past it very quietly | a pond full of frogs
        locked gate | went along the wall | a merry band""",
    ),
}
