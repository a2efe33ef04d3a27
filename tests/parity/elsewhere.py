"""The cases that tests outside this folder answer."""

from __future__ import annotations

from typing import Final

from tests.parity.marks import parity
from tests.web import test_nestjs as nestjs

__all__ = ["MODULES"]

MODULES: Final = (nestjs,)

parity("N1")(nestjs.test_n1_for_root_counts_views)
parity("N2")(nestjs.test_n2_for_root_async_counts_views)
parity("N3")(nestjs.test_n3_the_session_is_absent_while_the_storage_is_away)
parity(
    "N3",
    differs="a browser without a cookie has one: nothing is asked of the storage before there is "
    "something to save",
)(nestjs.test_n3_differs_a_request_without_a_cookie_has_a_session_all_the_same)
parity("N3")(nestjs.test_n3_where_a_handler_needs_its_session_the_outage_is_a_500)
parity(
    "N3",
    differs="reading gives no session and no error: `find_session` is `None` and the handler "
    "decides, while `get_session` answers 500 for it; a save that fails is a 500, because a change "
    "that was not kept is not answered as if it were",
)(nestjs.test_n3_differs_a_save_that_fails_is_a_500)
parity("N4")(nestjs.test_n4_with_retries_0_the_handler_is_not_called_while_the_storage_is_away)
parity(
    "N4",
    differs="a browser without a cookie reaches the handler, and gets its 500 only if there is "
    "something to save",
)(nestjs.test_n4_differs_a_request_without_a_cookie_is_served)
parity("N5")(nestjs.test_n5_a_storage_that_is_back_for_the_retry_is_enough)
parity("N6")(nestjs.test_n6_with_retries_0_an_error_in_the_storage_refuses_known_browsers_only)
parity("N7")(nestjs.test_n7_for_routes)
parity("N8")(nestjs.test_n8_exclude)
parity("M1", differs="refused with a clear error: there is no session without a secret")(
    nestjs.test_m1_without_options_there_is_a_clear_error_and_no_secret_is_made_up
)
parity("M2")(nestjs.test_m2_the_options_that_are_given_are_those_that_are_used)
parity("M3")(nestjs.test_m3_the_options_that_the_factory_returns_are_those_that_are_used)
parity("M4", differs="one call gives one middleware; `app.middlewares` is a list already")(
    nestjs.test_m4_middlewares_run_once_for_each_request_and_in_order
)
parity("M5", differs="the routing options stand among the others, in one SessionOptions")(
    nestjs.test_m5_routing_is_decided_by_the_options_and_the_rest_of_them_is_unchanged
)
