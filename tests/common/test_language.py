"""Which texts are English: sentences, fragments, style tails, names."""

import pytest

from common.language import foreign

TAIL = ", oil painting, highly detailed, trending on artstation"
FOREIGN = """Zwei Hunde spielen im Garten hinter dem alten Haus
Ein Mann in einem
eine Katze auf dem Dach
un perro grande corriendo por la playa al atardecer
un chat noir sur le toit
Une femme avec un chapeau
dans les montagnes enneigées
en hund som sover på en stol
abuela cocinando galletas en la cocina
kat die op boeken slaapt
bir kedi ve köpek
Muž spí na gauči v zeleném pokoji.
Malá dívka leze do dřevěného domu
Černý a flekatý pes
pes na zahradě
lena y su esposo
el hombre de los muertos
Der Wanderer über dem Nebelmeer
зимний лес ночью
涼宮ハルヒの憂鬱、アニメ
öreg halász, reggeli köd
cuisine moderne en bois clair
wit paard rent over het strand
photo en noir et blanc d'un mineur
häxan kokar soppa i sin stuga
nelayan tua dengan janggut putih
robot bermain piano
kucing menatap burung
gato mirando pájaro
kat kijkt naar vogel
sowa czyta gazetę
kedi gazete okuyor
ekorre samlar nötter
pupazzo di neve
hund mit hut und brille
chat regarde oiseau
guarda-chuva amarelo, rua molhada
zamek nad rekou""".splitlines()
ENGLISH = """a corgi wearing a top hat
A bicycle chained to a pole on a snowy day
a red potato
mini dinosaur skeleton inside a crystal geode
portrait by Greg Rutkowski, artstation
Vincent van Gogh's Starry Night, upscaled to 4K
Simon Stålenhag, 8k
a café in Paris at night
crème brûlée on a plate
El Capitan at dawn
two dogs, a cat
neon city
castle on a hill in Bavaria, Neuschwanstein
Die Hard movie poster
tacos al pastor, food photography
a man in a hat
Lana del Rey
Guillermo del Toro monster
vintage pan am travel poster of Las Playitas in fuerteventura
tubular coffee mug
zen koan ink
fox, furry art artstation
ms-dos game
a yellow diamond-shaped sign
Białowieża Forest trail cam footage
samurai au naturel
quattro stagioni
elle magazine, vogue magazine cover""".splitlines()


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_texts_with_and_without_an_english_tail(text):
    assert foreign(text)
    assert foreign(text + TAIL)
    assert foreign(text + " by alphonse mucha and greg rutkowski")


def test_a_long_text_brings_no_message_of_the_detector(caplog):
    caplog.set_level("INFO")
    foreign("ein sehr langes " + "wort ohne ende " * 20)
    assert caplog.messages == []


@pytest.mark.parametrize("text", ENGLISH)
def test_english_texts(text):
    assert foreign(text) == ""
    assert foreign(text + TAIL) == ""
