"""The booking agent with its tools under `@tool`: a replay gives them their recorded results and runs none.

tracefork-otel run -- python examples/booking_tools.py --city Osaka
tracefork-otel replay last
tracefork-otel fork last@2 --tool-result 'check_seats={"seats": 0}'
"""

import sys

import booking_agent

from tracefork_otel import tool


@tool
def search_flights(city: str) -> object:
    print(f"searching flights to {city}", file=sys.stderr)
    return booking_agent.search_flights(city)


@tool
def check_seats(flight: str, date: str) -> object:
    print(f"checking {flight} on {date}", file=sys.stderr)
    return booking_agent.check_seats(flight, date)


@tool(name="book")
def book_flight(flight: str, date: str) -> object:
    print(f"booking {flight} on {date}", file=sys.stderr)
    return booking_agent.book_flight(flight, date)


booking_agent.FUNCTIONS = {"search_flights": search_flights, "check_seats": check_seats, "book": book_flight}

if __name__ == "__main__":
    booking_agent.main()
