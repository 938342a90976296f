"""Small data in exactly the form of the public downloads that examples/recsys2021 and the challenges' YAMLs read.

Sessions follow a rule that a model can learn: items lie on a circle, and most steps go to the next one.
"""

import csv
import gzip
import io
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

ITEMS = 60


def walks(
    sessions: int, windows: int, unit: timedelta, begin: datetime, seed: int = 0, items: int = ITEMS
) -> list[tuple[int, list[tuple[datetime, int]]]]:
    """Sessions as (number, [(moment, item), ...]), spread evenly over so many windows."""
    rng = random.Random(seed)
    found = []
    for number in range(sessions):
        moment = begin + windows * unit * (number / sessions)
        item, clicks = rng.randrange(items), []
        for _ in range(rng.randrange(2, 8)):
            clicks.append((moment, item))
            moment += timedelta(seconds=rng.randrange(1, 30))
            item = (item + 1) % items if rng.random() < 0.9 else rng.randrange(items)
        found.append((number, clicks))
    return found


def _csv(rows: list[list[object]], header: str = "") -> str:
    stream = io.StringIO(header + "\n" if header else "")
    stream.seek(0, io.SEEK_END)
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def rees46(folder: Path, sessions: int = 240, days: int = 4) -> None:
    """2019-Oct.csv.gz: views and carts, some twice in a row, brands and categories with gaps."""
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
    rows: list[list[object]] = []
    for number, clicks in walks(sessions, days, timedelta(days=1), datetime(2019, 10, 1, tzinfo=UTC)):
        for moment, item in clicks:
            category = 2053013552326770905 + item % 6
            code = ("appliances.kitchen.washer", "electronics.audio", "")[item % 3]
            row = [
                f"{moment:%Y-%m-%d %H:%M:%S} UTC", "view", 1000 + item, category, code,
                "" if item % 7 == 0 else f"brand{item % 5}", f"{5 + item}.20", number % 50, f"72d76fde-{number:04d}",
            ]  # fmt: skip
            rows += [row] if number % 4 else [row, [*row[:1], "cart", *row[2:]]]
    with gzip.open(folder / "2019-Oct.csv.gz", "wt", encoding="utf-8") as stream:
        stream.write(_csv(rows, header))


def yoochoose(folder: Path, sessions: int = 240, days: int = 4) -> None:
    """yoochoose-clicks.dat: no header, milliseconds."""
    rows: list[list[object]] = []
    for number, clicks in walks(sessions, days, timedelta(days=1), datetime(2014, 4, 1, 3, tzinfo=UTC)):
        rows += [[number + 1, f"{at:%Y-%m-%dT%H:%M:%S}.{7:03d}Z", 214536500 + item, "0"] for at, item in clicks]
    (folder / "yoochoose-clicks.dat").write_text(_csv(rows), encoding="utf-8")


def g1(folder: Path, sessions: int = 240, hours: int = 4) -> None:
    """clicks_hour_000.csv and so on in a folder below, one of them empty as in the download."""
    below = folder / "clicks"
    below.mkdir()
    header = (
        "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment,"
        "click_deviceGroup,click_os,click_country,click_region,click_referrer_type"
    )
    files: dict[int, list[list[object]]] = {hour: [] for hour in range(hours)}
    begin = datetime(2017, 10, 1, 2, 37, 3, tzinfo=UTC)
    for number, clicks in walks(sessions, hours, timedelta(minutes=59), begin):
        start = int(clicks[0][0].timestamp())
        clicks = [*clicks, clicks[0]] if number % 3 == 0 else clicks  # the first article is read again
        for place, (moment, item) in enumerate(clicks):
            at = int(moment.timestamp()) * 1000 + 500_000 * (place == len(clicks) - 1 and number % 3 == 0)
            context = [4, 1 + number % 3, 17, 1, 21 + number % 4, 2]
            row = [number, 150684 * 10**10 + number, start * 1000, len(clicks), 119592 + item, at, *context]
            files[(start - int(begin.timestamp())) // 3600].append(row)
    for hour, rows in files.items():
        (below / f"clicks_hour_{hour:03d}.csv").write_text(_csv(rows, header), encoding="utf-8")
    (below / f"clicks_hour_{hours:03d}.csv").write_text("", encoding="utf-8")


def adressa(folder: Path, sessions: int = 240, hours: int = 4) -> None:
    """20170101: JSON lines, page views without an article among them, users that come back after hours."""
    lines = []
    begin = datetime(2016, 12, 31, 23, 0, 2, tzinfo=UTC)
    for number, clicks in walks(sessions, hours, timedelta(hours=1), begin):
        # A user's visits are two windows apart.
        user = f"cx:{number % (sessions // 2)}:u"
        for moment, item in clicks:
            view: dict[str, object] = {
                "eventId": 906331936 + len(lines), "id": f"{item:040x}", "userId": user,
                "time": int(moment.timestamp()), "title": "- Det blir fyrverkeri",
                "category1": "nyheter|trondheim" if item % 2 else "sport|fotball",
                "author": ["norunn", "joakim"] if item % 3 else "norunn", "publishtime": "2016-12-31T15:48:48.000Z",
                "keywords": "utenriks,innenriks", "sessionStart": False, "sessionStop": False, "city": "trondheim",
                "region": "sor-trondelag", "country": "no", "deviceType": "Mobile", "os": "iPhone OS",
                "referrerHostClass": "direct", "profile": [{"item": "0", "groups": [{"count": 1, "weight": 0.4}]}],
            }  # fmt: skip
            if item % 5 == 0:
                del view["city"]
            lines.append(json.dumps(view))
            front = {"eventId": 1, "userId": user, "time": int(moment.timestamp()), "url": "http://adressa.no"}
            lines.append(json.dumps(front))
    (folder / "20170101").write_text("\n".join(lines) + "\n", encoding="utf-8")


def coveo(folder: Path, sessions: int = 240) -> None:
    """browsing_train.csv and sku_to_content.csv: vectors as JSON in text, page views, products without content."""
    header = "session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms,hashed_url"
    rows: list[list[object]] = []
    for number, clicks in walks(sessions, 10, timedelta(days=1), datetime(2019, 2, 18, tzinfo=UTC)):
        for moment, item in clicks:
            at, page = int(moment.timestamp() * 1000), f"{item:064x}"
            action = "add" if number % 5 == 0 else "detail"
            rows.append([f"{number:064x}", "event_product", action, f"{7000 + item:064x}", at, page])
            rows.append([f"{number:064x}", "pageview", "", "", at, page])
        rows.append([f"{number:064x}", "event_product", "remove", f"{7000:064x}", at + 1, page])
    (folder / "browsing_train.csv").write_text(_csv(rows, header), encoding="utf-8")
    header = "product_sku_hash,description_vector,category_hash,image_vector,price_bucket"
    table: list[list[object]] = []
    rng = random.Random(1)
    for item in range(ITEMS):
        if item % 6 == 0:  # nothing is known of it
            table.append([f"{7000 + item:064x}", "", "", "", ""])
            continue
        text, image = ([rng.gauss(0, scale) for _ in range(50)] for scale in (0.1, 60))
        path = "/".join(f"{item % size:064x}" for size in (3, 6, 12))
        table.append([f"{7000 + item:064x}", json.dumps(text), path, json.dumps(image), float(1 + item % 10)])
    (folder / "sku_to_content.csv").write_text(_csv(table, header), encoding="utf-8")


def booking(folder: Path, sessions: int = 240) -> None:
    """train_set.csv: trips of four bookings and more, by day."""
    header = "user_id,checkin,checkout,city_id,device_class,affiliate_id,booker_country,hotel_country,utrip_id"
    rows: list[list[object]] = []
    for number, stays in walks(sessions, 300, timedelta(days=1), datetime(2016, 1, 1, tzinfo=UTC)):
        day = stays[0][0]
        cities = [city for _, city in stays]
        while len(cities) < 4:
            cities.append((cities[-1] + 1) % ITEMS)
        for city in cities:
            out = day + timedelta(days=1 + city % 3)
            user, odd = 1000027 + number % 90, number % 2
            booking = [user, f"{day:%Y-%m-%d}", f"{out:%Y-%m-%d}", 8183 + city, ("desktop", "mobile")[odd]]
            booking += [7168 + number % 4, ("Elbonia", "Gondal")[odd], f"Country{city % 7}", f"{user}_{number}"]
            rows.append(booking)
            day = out
    (folder / "train_set.csv").write_text(_csv(rows, header), encoding="utf-8")
