"""What a user is told of a mistake."""
import pytest

from etl.common.command_line import UserError


def message_of(function, *args, **kwargs):
    """The message of the UserError that the call raises."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    return str(caught.value)
