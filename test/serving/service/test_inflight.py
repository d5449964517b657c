from serving.service.inflight import Inflight, Share


def test_the_longest_under_way_gives_way():
    inflight, gone = Inflight(10), []
    first, second, third = [Share(lambda number=number: gone.append(number)) for number in range(3)]
    assert inflight.take(first, 5) and inflight.take(second, 5)
    assert inflight.take(second, 1)
    assert (gone, inflight.num_bytes, first.num_bytes) == ([0], 6, 0)
    assert inflight.take(third, 10)
    assert (gone, inflight.num_bytes) == ([0, 1], 10)


def test_what_is_complete_stays_and_the_newcomer_is_refused():
    refused = []
    inflight = Inflight(10, lambda: refused.append(1))
    complete, coming = Share(None), Share(lambda: None)
    assert inflight.take(complete, 8) and inflight.take(coming, 2)
    assert not inflight.take(coming, 1)
    assert (inflight.num_bytes, coming.num_bytes, refused) == (8, 0, [1])
    assert not inflight.take(Share(None), 3)
    assert inflight.num_bytes == 8


def test_given_back_once():
    inflight, share = Inflight(10), Share(None)
    assert inflight.take(share, 4)
    inflight.give_back(share)
    inflight.give_back(share)
    assert inflight.num_bytes == 0


def test_one_that_alone_is_too_much():
    inflight = Inflight(10)
    assert not inflight.take(Share(lambda: None), 11)
    assert inflight.num_bytes == 0
