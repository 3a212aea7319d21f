# SPDX-License-Identifier: Apache-2.0
"""Words that surrogates are made of: common names, and invented places, firms and streets.

A patient's first name is one of either sex, as few placeholders tell the sex, and notes that differ
in the name that they guess would be worse.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


EITHER = _words("""
Addison Adrian Alex Alexis Ariel Ashley Aubrey Avery Bailey Blair Brett Cameron Carey Casey Chris
Corey Courtney Dana Darcy Devin Drew Elliot Emerson Evelyn Finley Frankie Gale Hayden Jackie Jaime
Jamie Jean Jesse Jocelyn Jody Jordan Kelly Kendall Kerry Kim Lee Leslie Logan Loren Marion Marlin
Micah Morgan Noel Parker Pat Peyton Quinn Reese Riley Robin Rory Rowan Sandy Sawyer Shannon Shelby
Sidney Skyler Stacy Taylor Terry Toni Tracy Whitney""")
FEMALE = _words("""
Agnes Alice Amanda Amy Andrea Angela Anita Anna Barbara Beatrice Bernice Beth Brenda Carmen Carol
Caroline Catherine Cheryl Clara Claudia Cynthia Deborah Denise Diana Donna Dorothy Edith Elaine
Elena Elizabeth Ellen Esther Eva Fatima Florence Frances Gloria Grace Hannah Helen Ingrid Irene
Jane Janet Joan Joyce Judith Julia Karen Katherine Laura Lillian Linda Lois Lucille Margaret Maria
Marie Martha Mei Mildred Monica Nancy Natalie Norma Olga Pamela Patricia Paula Phyllis Priya Rachel
Rebecca Rita Rosa Rose Ruth Sandra Sarah Sharon Sheila Sofia Susan Sylvia Teresa Valerie Vera Wendy
Yolanda""")
MALE = _words("""
Aaron Albert Alfred Allen Andrew Anthony Arthur Benjamin Bernard Brian Bruce Carl Carlos Charles
Daniel David Dennis Dmitri Donald Douglas Earl Edward Eric Ernest Eugene Felix Francis Frank Gary
George Gerald Gilbert Gordon Gregory Harold Harry Henry Herbert Howard Hugo Ivan Jack Jacob James
Jeffrey Jerome John Jose Joseph Keith Kenneth Kevin Larry Lawrence Leonard Louis Luis Manuel Mark
Martin Matthew Michael Miguel Norman Omar Oscar Patrick Paul Peter Philip Rajesh Ralph Raymond
Richard Robert Roger Ronald Roy Russell Samuel Scott Stanley Stephen Theodore Thomas Timothy Victor
Vincent Walter Warren Wei William""")
LAST = _words("""
Abbott Adams Aguilar Ahmed Allen Alvarez Anderson Andrews Bailey Baker Barnes Bauer Becker Bell
Bennett Bishop Black Bowman Boyd Bradley Brooks Brown Bryant Burke Burns Butler Byrne Campbell
Carlson Carroll Carter Castillo Chang Chapman Chavez Chen Clark Cohen Cole Coleman Collins Cooper
Costa Cox Crawford Cruz Cunningham Daniels Davidson Davis Dean Delgado Diaz Dixon Doyle Duncan Dunn
Edwards Ellis Evans Farrell Ferguson Fernandez Fischer Fisher Fleming Flores Foster Fowler Fox
Freeman Fuller Garcia Gardner Gibson Goldberg Gomez Gonzalez Graham Grant Gray Green Griffin Gupta
Hall Hamilton Hansen Harper Harris Harvey Hayes Henderson Hernandez Hicks Hill Hoffman Holland
Howard Hughes Hunt Ibrahim Jackson James Jensen Johnson Jones Jordan Kaplan Katz Kelly Kennedy Khan
Kim King Klein Knight Kowalski Kumar Lambert Lane Larson Lawson Lee Levine Lewis Lin Lopez Lynch
Marshall Martin Martinez Mason Matthews McCarthy McDonald Mendoza Meyer Miller Mitchell Moore
Morales Morgan Morris Murphy Murray Myers Nakamura Nelson Newman Nguyen Novak Odell Okafor Olson
Ortiz Owens Palmer Park Parker Patel Patterson Pena Perez Perkins Perry Peters Phillips Pierce
Porter Powell Price Quinn Ramirez Ramos Reed Reyes Reynolds Rice Richards Rivera Roberts Robinson
Rodriguez Rogers Romano Rose Ross Rossi Russell Ryan Sanchez Sanders Santos Schmidt Schneider
Schwartz Scott Shah Shaw Silva Simmons Simpson Singh Smith Snyder Spencer Stein Stephens Stevens
Stewart Stone Sullivan Suzuki Taylor Thomas Thompson Torres Tran Tucker Turner Vargas Vasquez
Wagner Walker Wallace Walsh Wang Ward Warren Washington Watson Weaver Webb Weber Weiss Wells West
Wheeler White Williams Wilson Wong Wood Wright Wu Yang Young Zhang Zimmerman""")
TOWN_STARTS = _words("""
Alder Ash Birch Bright Cedar Clear East Elm Fair Glen Green Hazel Lake Maple Mill North Oak Rock
South Spring Stone Sweet Wal West Win""")
TOWN_ENDS = _words("boro brook burg bury dale field ford ham haven mont mouth port ton ville wood")
HOSPITALS = ("General Hospital", "Medical Center", "Memorial Hospital", "Community Hospital")
UNIVERSITIES = ("University", "State University", "College")
COMPANIES = ("Foods", "Construction", "Electric", "Insurance", "Shipping", "& Sons", "Bank")
STREETS = ("Street", "Avenue", "Road", "Lane", "Drive", "Place")
WARDS = _words("East West North South Reed Stone Farrell Blake Holland Palmer Weaver Ross")
STATES = _words("""
Maine Vermont Ohio Texas Florida Oregon Georgia Virginia Maryland Delaware Illinois California
Connecticut Pennsylvania Massachusetts Michigan Minnesota Colorado Arizona Tennessee""")
COUNTRIES = _words("""
Canada Mexico Brazil Italy Greece Portugal Poland Russia Haiti Jamaica India China Vietnam Japan
Ireland Germany France Ethiopia Nigeria Morocco""")
HOLIDAYS = ("Thanksgiving", "Christmas", "New Year's Day", "Labor Day", "Easter", "Memorial Day")
