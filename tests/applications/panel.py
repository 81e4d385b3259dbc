"""A page of Streamlit: a number to type, kept and shown with all that was typed before it in this session."""

import streamlit

said = streamlit.number_input("said", value=0, step=1)
streamlit.session_state.setdefault("all", []).append(said)
streamlit.text(f"said {said}.")
