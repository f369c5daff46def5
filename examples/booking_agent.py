"""A travel agent: the model picks a flight with three tools and books it.

    python examples/booking_agent.py --city Tokyo            # ends in BOOKED
    python examples/booking_agent.py --city Osaka            # ends in ERROR: which step lost it?
    python examples/booking_agent.py --city Osaka --sampled  # does so in half of its runs
    tracefork-otel run -- python examples/booking_agent.py --city Osaka

Without ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL it talks to a scripted model on this machine.
To record it without `tracefork-otel run`, add one line:
    from tracefork_otel import TraceforkInstrumentor; TraceforkInstrumentor().instrument()
"""

import argparse
import contextlib
import json
import os

from anthropic import Anthropic

MODEL = "claude-sonnet-5"
DAY = "2026-11-03"
TOKYO = {"NH106": 740, "JL42": 815, "UA837": 990}
FLIGHTS = {"Tokyo": TOKYO, "Osaka": {"KE724": 690, "JL60": 780, "NH176": 905}}
SEATS = {
    ("JL42", "2026-11-03"): 4,
    ("UA837", "2026-11-03"): 11,
    ("JL60", "2026-11-04"): 9,  # one day late: on the 3rd it is sold out
    ("NH176", "2026-11-03"): 2,
}


def search_flights(city: str) -> object:
    return [{"flight": flight, "price": price} for flight, price in FLIGHTS.get(city, {}).items()]


def check_seats(flight: str, date: str) -> object:
    return {"flight": flight, "date": date, "seats": SEATS.get((flight, date), 0)}


def book_flight(flight: str, date: str) -> object:
    if not SEATS.get((flight, date)):
        return {"flight": flight, "date": date, "status": "sold out"}
    return {"flight": flight, "date": date, "status": "confirmed", "reference": f"TF-{flight}-{date[-2:]}"}


FUNCTIONS = {"search_flights": search_flights, "check_seats": check_seats, "book": book_flight}


def tool(name: str, description: str, *fields: str) -> dict:
    properties = {field: {"type": "string"} for field in fields}
    schema = {"type": "object", "properties": properties, "required": list(fields)}
    return {"name": name, "description": description, "input_schema": schema}


TOOLS = [
    tool("search_flights", "Flights to a city, with prices in EUR", "city"),
    tool("check_seats", "How many seats a flight has left on a day (YYYY-MM-DD)", "flight", "date"),
    tool("book", "Book one seat on a flight", "flight", "date"),
]


def book(city: str) -> str:
    client = Anthropic()
    system = "You are a travel agent. Book the cheapest flight that has a seat."
    messages = [{"role": "user", "content": f"Please book a flight to {city} on {DAY}."}]
    while True:
        with client.messages.stream(
            model=MODEL, max_tokens=1024, system=system, messages=messages, tools=TOOLS
        ) as stream:
            answer = stream.get_final_message()
        messages.append(answer.to_param())
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            return "".join(block.text for block in answer.content if block.type == "text")
        results = [(call.id, json.dumps(FUNCTIONS[call.name](**call.input))) for call in calls]
        content = [{"type": "tool_result", "tool_use_id": id, "content": text} for id, text in results]
        messages.append({"role": "user", "content": content})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--city", default="Tokyo")
    parser.add_argument("--sampled", action="store_true", help="the scripted model errs at times only")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if not os.environ.keys() & {"ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"}:
            from tracefork_backend.simulate import spawn

            model = "booking_sampled" if options.sampled else "booking"
            os.environ["ANTHROPIC_BASE_URL"] = stack.enter_context(spawn(model, file=__file__))
        os.environ.setdefault("ANTHROPIC_API_KEY", "not needed")
        print(book(options.city))


if __name__ == "__main__":
    main()
