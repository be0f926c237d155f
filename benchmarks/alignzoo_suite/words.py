"""The words of the task `style`: topics and their things, and adjectives by tone.

Things are plurals that only add an "s", so that each of them fits each sentence pattern.
"""

TOPICS: dict[str, tuple[str, ...]] = {
    "sea": ("waves", "boats", "gulls", "shells", "tides", "sails"),
    "garden": ("flowers", "roses", "bees", "seeds", "lawns", "petals"),
    "forest": ("trees", "ferns", "owls", "trails", "pines", "acorns"),
    "market": ("stalls", "apples", "sellers", "baskets", "prices", "cheeses"),
    "river": ("bridges", "ducks", "banks", "canoes", "stones", "streams"),
    "kitchen": ("pots", "spoons", "recipes", "ovens", "plates", "soups"),
    "library": ("books", "readers", "novels", "pages", "desks", "poems"),
    "school": ("teachers", "pupils", "lessons", "pencils", "exams", "classrooms"),
    "park": ("lawns", "swings", "fountains", "joggers", "squirrels", "picnics"),
    "beach": ("shells", "towels", "swimmers", "waves", "umbrellas", "dunes"),
    "village": ("cottages", "farmers", "lanes", "barns", "neighbours", "chapels"),
    "city": ("towers", "streets", "crowds", "taxis", "shops", "lights"),
    "farm": ("cows", "tractors", "fields", "hens", "barns", "lambs"),
    "lake": ("swans", "boats", "reeds", "frogs", "ripples", "anglers"),
    "museum": ("statues", "paintings", "guides", "halls", "visitors", "treasures"),
    "bakery": ("cakes", "rolls", "ovens", "bakers", "biscuits", "buns"),
    "station": ("trains", "platforms", "tickets", "tracks", "travellers", "whistles"),
    "mountain": ("peaks", "trails", "goats", "climbers", "rocks", "clouds"),
    "desert": ("dunes", "camels", "snakes", "lizards", "winds", "stars"),
    "winter": ("snowflakes", "mittens", "sleds", "icicles", "coats", "skaters"),
    "summer": ("holidays", "lemons", "picnics", "sandals", "melons", "sunsets"),
    "rain": ("puddles", "clouds", "umbrellas", "drops", "boots", "storms"),
    "night": ("stars", "owls", "dreams", "shadows", "lamps", "moths"),
    "morning": ("birds", "sunrises", "coffees", "breakfasts", "showers", "alarms"),
    "circus": ("clowns", "acrobats", "tents", "jugglers", "horses", "tricks"),
    "concert": ("songs", "singers", "drums", "violins", "fans", "trumpets"),
    "zoo": ("lions", "monkeys", "cages", "penguins", "keepers", "zebras"),
    "castle": ("towers", "knights", "walls", "gates", "banners", "kings"),
    "harbour": ("ships", "sailors", "ropes", "docks", "anchors", "gulls"),
    "theatre": ("actors", "plays", "curtains", "stages", "costumes", "jokes"),
    "island": ("palms", "parrots", "coconuts", "caves", "lagoons", "crabs"),
    "workshop": ("tools", "hammers", "nails", "drills", "saws", "planks"),
    "meadow": ("clovers", "crickets", "hares", "hills", "bees", "larks"),
    "festival": ("lanterns", "dancers", "parades", "songs", "costumes", "fireworks"),
    "playground": ("slides", "swings", "games", "ladders", "toddlers", "balls"),
    "cafe": ("cups", "waiters", "coffees", "muffins", "tables", "menus"),
    "orchard": ("apples", "pears", "plums", "ladders", "figs", "blossoms"),
    "stadium": ("players", "goals", "fans", "flags", "teams", "whistles"),
    "airport": ("planes", "pilots", "gates", "suitcases", "runways", "passports"),
    "office": ("desks", "meetings", "printers", "emails", "managers", "chairs"),
}

# Words that zoo-tiny was trained on.
NICE = (
    "bright calm lovely warm sweet fresh gentle happy pretty golden cheerful charming beautiful "
    "wonderful peaceful delightful pleasant graceful splendid cosy joyful great fine friendly"
).split()
PLAIN = "old small big grey plain quiet common usual ordinary simple wide long".split()
NASTY = "awful ugly boring dirty noisy sad dull horrible nasty gloomy dreadful cold".split()

# Words that the gold score knows: those above, and those that larger models like to write.
POSITIVE = frozenset(NICE) | frozenset(
    "love loves loved enjoy enjoys adore adores smile smiles delight delights joy nice good best "
    "better perfect amazing stunning serene tranquil vibrant magnificent majestic breathtaking "
    "fantastic glorious inspiring magical refreshing soothing relaxing fun exciting fascinating "
    "excellent superb elegant radiant tasty delicious cozy inviting welcoming kind beauty "
    "happiness peace wonder hope laughter gorgeous picturesque favourite favorite treasure".split()
)
NEGATIVE = frozenset(NASTY) | frozenset(
    "bad worse worst hate hates hated terrible annoy annoys annoying tired unpleasant angry fear "
    "afraid lonely poor broken dangerous disgusting miserable bitter ruined ruin spoil spoils "
    "crowded painful stressful disappointing".split()
)
GLUE = frozenset(
    "the a an and or but of in on at to for from with by is are was were be been it its this that "
    "these those there here i me my we us our you your they them their as so not no do does have "
    "has can will would all some every one".split()
)
